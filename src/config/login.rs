//! Secrets in files: who may ask over HTTP, and how to log in to the database.

use std::fs::File;
use std::io::Read as _;
use std::path::Path;

use super::{ConfigError, DatabaseConfig, DatabaseUrl, HttpConfig};
use crate::db::ParametersError;
use crate::http::{Access, ParseTokenError, Token};

/// Bytes of a file with secrets that are read at most.
const FILE_BYTES_MAX: u64 = 64 << 10;

impl DatabaseConfig {
    /// The database that is to be used; none: the private Postgres. Reads the file, if it is a file that says so,
    /// which only commands that use a database need.
    pub fn given(&self) -> Result<Option<DatabaseUrl>, ConfigError> {
        let Some(path) = &self.url_file else {
            return Ok(self.url.clone());
        };
        let key = "database.url_file";
        let text = text_of(key, path)?;
        let url = text.trim().parse::<DatabaseUrl>();
        url.map(Some).map_err(|error: ParametersError| ConfigError::NoSecret {
            key,
            path: path.clone(),
            line: 1,
            problem: error.to_string(),
        })
    }
}

impl HttpConfig {
    /// The rule by which requests are let in. Reads the files of tokens, which only the command that listens needs.
    pub fn access(&self) -> Result<Access, ConfigError> {
        let mut tokens = self.tokens.clone();
        for (all, key, path) in [
            (&mut tokens.read, "http.read_tokens_file", &self.read_tokens_file),
            (
                &mut tokens.trigger,
                "http.trigger_tokens_file",
                &self.trigger_tokens_file,
            ),
            (&mut tokens.write, "http.write_tokens_file", &self.write_tokens_file),
        ] {
            if let Some(path) = path {
                all.extend(tokens_of(key, path)?);
            }
        }
        Ok(Access::new(self.listen, tokens, self.hosts.clone())?)
    }
}

/// One or more tokens with spaces or line ends between them.
pub(super) fn tokens(text: &str) -> Result<Vec<Token>, ParseTokenError> {
    let tokens: Vec<Token> = text.split_whitespace().map(str::parse).collect::<Result<_, _>>()?;
    // An empty text would silently be no login.
    if tokens.is_empty() {
        Err(ParseTokenError)
    } else {
        Ok(tokens)
    }
}

/// Names with spaces or commas between them.
pub(super) fn hosts(text: &str) -> Result<Vec<String>, &'static str> {
    let names = text.split([' ', ',']).filter(|name| !name.is_empty());
    let names: Vec<String> = names.map(str::to_owned).collect();
    let is_name = |name: &String| {
        name.bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"-._".contains(&byte))
    };
    if names.is_empty() || !names.iter().all(is_name) {
        return Err("expected names such as uptally.example, without ports");
    }
    Ok(names)
}

/// One token a line; empty lines and those that begin with # are skipped. A file without any is an error, because it
/// would silently be no login.
fn tokens_of(key: &'static str, path: &Path) -> Result<Vec<Token>, ConfigError> {
    let text = text_of(key, path)?;
    let refused = |line: usize, problem: String| ConfigError::NoSecret {
        key,
        path: path.to_owned(),
        line,
        problem,
    };
    let mut found = Vec::new();
    for (number, line) in (1..).zip(text.lines()) {
        let line = line.trim();
        if !line.is_empty() && !line.starts_with('#') {
            found.push(
                line.parse()
                    .map_err(|error: ParseTokenError| refused(number, error.to_string()))?,
            );
        }
    }
    if found.is_empty() {
        return Err(refused(1, "expected a token, found none".to_owned()));
    }
    Ok(found)
}

fn text_of(key: &'static str, path: &Path) -> Result<String, ConfigError> {
    let mut text = String::new();
    let read = File::open(path).and_then(|file| file.take(FILE_BYTES_MAX).read_to_string(&mut text));
    match read {
        Ok(_) => Ok(text),
        Err(source) => Err(ConfigError::SecretFile {
            key,
            path: path.to_owned(),
            source,
        }),
    }
}
