//! As much of the protocol of Postgres as the proxy has to know.

/// A client's bytes, cut into messages of the protocol.
#[derive(Default)]
pub struct Messages {
    bytes: Vec<u8>,
    is_started: bool,
}

/// The code of a startup message of version 3.0, in the place where encryption requests have theirs.
const STARTUP: [u8; 4] = [0, 3, 0, 0];

impl Messages {
    /// Takes bytes in; returns the `application_name` if they complete the message that tells it.
    pub fn take(&mut self, piece: &[u8]) -> Option<String> {
        self.bytes.extend_from_slice(piece);
        // The first messages have no type before their length. After an encryption request another one follows.
        if self.is_started || self.bytes.get(4..8)? != STARTUP {
            return None;
        }
        let fields = String::from_utf8_lossy(&self.bytes[8..]).into_owned();
        let mut fields = fields.split('\0');
        fields.find(|field| *field == "application_name")?;
        Some(fields.next().unwrap_or_default().to_owned())
    }

    /// The next whole message.
    pub fn next(&mut self) -> Option<Vec<u8>> {
        let at = usize::from(self.is_started);
        let length = self.bytes.get(at..at + 4)?;
        let length = at + usize::try_from(u32::from_be_bytes(length.try_into().unwrap())).unwrap();
        if self.bytes.len() < length {
            return None;
        }
        self.is_started |= self.bytes.get(4..8) == Some(&STARTUP);
        let rest = self.bytes.split_off(length);
        Some(std::mem::replace(&mut self.bytes, rest))
    }
}

/// A server's bytes, of which messages of type `A` can be left out. Without encryption all of its messages have a type.
#[derive(Default)]
pub struct Notifications {
    /// The head of the message that the last piece ended in, as far as it came.
    head: Vec<u8>,
    /// Bytes of it that are still to come, and whether they are kept.
    rest: usize,
    is_kept: bool,
}

impl Notifications {
    /// The bytes without the notifications among them.
    pub fn without(&mut self, mut piece: &[u8]) -> Vec<u8> {
        let mut kept = Vec::new();
        while let Some(&byte) = piece.first() {
            if self.rest > 0 {
                let length = self.rest.min(piece.len());
                let (part, after) = piece.split_at(length);
                if self.is_kept {
                    kept.extend_from_slice(part);
                }
                self.rest -= length;
                piece = after;
                continue;
            }
            self.head.push(byte);
            piece = &piece[1..];
            if let [kind, length @ ..] = self.head.as_slice()
                && let Ok(length) = <[u8; 4]>::try_from(length)
            {
                self.rest = usize::try_from(u32::from_be_bytes(length)).unwrap() - 4;
                self.is_kept = *kind != b'A';
                if self.is_kept {
                    kept.append(&mut self.head);
                }
                self.head.clear();
            }
        }
        kept
    }
}

/// A simple query that commits, which is what the client library sends.
pub fn is_commit(message: &[u8]) -> bool {
    message.first() == Some(&b'Q') && message.get(5..).is_some_and(|sql| sql.starts_with(b"COMMIT"))
}
