//! Snapshot text: what is read is a snapshot, is written as it was read, and says of each transaction whether it is new.

use uptally::feed::Cursor;

/// Reads the bytes as a snapshot's text; then takes them as the numbers of a snapshot, writes it and reads it back.
pub fn run(bytes: &[u8]) {
    if let Ok(text) = std::str::from_utf8(bytes)
        && let Ok(cursor) = text.parse::<Cursor>()
    {
        check(&cursor);
        let ascii = text.bytes().all(|b| b.is_ascii_digit() || b == b':' || b == b',');
        assert!(ascii, "more was read than numbers: {text:?}");
        let numbers = |text: &str| -> Vec<u64> { text.split([':', ',']).filter_map(|n| n.parse().ok()).collect() };
        assert_eq!(numbers(text), numbers(&cursor.to_string()));
    }
    let numbers = bytes.chunks(8).map(|chunk| {
        let mut word = [0; 8];
        word[..chunk.len()].copy_from_slice(chunk);
        u64::from_le_bytes(word)
    });
    let mut numbers: Vec<u64> = numbers.collect();
    numbers.sort_unstable();
    numbers.dedup();
    let (Some(xmin), Some(xmax)) = (numbers.first().copied(), numbers.pop()) else {
        return;
    };
    let running = numbers.iter().map(u64::to_string).collect::<Vec<_>>().join(",");
    let text = format!("{xmin}:{xmax}:{running}");
    let cursor: Cursor = text.parse().expect("a snapshot");
    assert_eq!(cursor.to_string(), text);
    assert_eq!(
        (cursor.xmin(), cursor.xmax(), cursor.running()),
        (xmin, xmax, &numbers[..])
    );
    check(&cursor);
}

fn check(cursor: &Cursor) {
    assert_eq!(cursor.to_string().parse().as_ref(), Ok(cursor));
    let (xmin, xmax, running) = (cursor.xmin(), cursor.xmax(), cursor.running());
    assert!(xmin <= xmax);
    assert!(running.iter().all(|xid| (xmin..xmax).contains(xid)));
    assert!(running.windows(2).all(|pair| pair[0] < pair[1]));
    let edges = [0, xmin, xmax, u64::MAX].into_iter().chain(running.iter().copied());
    for xid in edges.flat_map(|xid| [xid.saturating_sub(1), xid, xid.saturating_add(1)]) {
        let visible = xid < xmin || (xid < xmax && !running.contains(&xid));
        assert_eq!(cursor.is_new(xid), !visible, "{xid} of {cursor}");
    }
}
