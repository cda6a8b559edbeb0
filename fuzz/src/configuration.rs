//! The configuration: a file, variables of the environment and a database URL, each of any bytes. An error names the
//! key; what is accepted is shown in a form that reads back the same; a password is never shown.

use std::ffi::OsString;
use std::fs;
use std::path::PathBuf;

use tempfile::TempDir;
use uptally::config::{Config, ConfigError, ConfigFile, DatabaseUrl, FlagValue, Secret};

/// Separates the three parts of an input.
const SEPARATOR: &[u8] = b"\n---\n";

thread_local! {
    static DIRECTORY: TempDir = tempfile::tempdir().expect("a directory for the file");
}

/// The bytes are a file, then lines `NAME=VALUE`, then a URL; between them a line `---`.
pub fn run(bytes: &[u8]) {
    let (file, rest) = split(bytes);
    let (variables, url) = split(rest);
    read(file, variables);
    if let Ok(secret) = std::str::from_utf8(url) {
        keep_password(secret);
        keep_token("http.read_tokens", secret);
        keep_token("http.trigger_tokens", secret);
    }
}

fn split(bytes: &[u8]) -> (&[u8], &[u8]) {
    let place = bytes.windows(SEPARATOR.len()).position(|window| window == SEPARATOR);
    match place {
        Some(place) => (&bytes[..place], &bytes[place + SEPARATOR.len()..]),
        None => (bytes, &[]),
    }
}

fn path_of(text: &[u8]) -> PathBuf {
    DIRECTORY.with(|directory| {
        let path = directory.path().join("uptally.toml");
        fs::write(&path, text).expect("a place for the file");
        path
    })
}

fn read(file: &[u8], variables: &[u8]) {
    let variables = String::from_utf8_lossy(variables);
    let pairs = variables.lines().filter_map(|line| line.split_once('='));
    let pairs = pairs.map(|(name, value)| (OsString::from(name), OsString::from(value)));
    match Config::load(&ConfigFile::Required(path_of(file)), pairs, Vec::new()) {
        Ok(config) => check_shown(&config),
        Err(error) => check_error(&error, file),
    }
}

/// What `uptally config` prints is a file with the same meaning, but for its secrets.
fn check_shown(config: &Config) {
    let shown = config.effective.to_string();
    let lines = |text: &str| -> Vec<String> {
        let lines = text.lines();
        let lines = lines.map(|line| line.rsplit_once("   # from ").expect("an origin").0);
        lines.map(str::to_owned).collect()
    };
    // A key that is not set is a comment.
    let key = |line: &str| {
        line.trim_start_matches("# ")
            .split(' ')
            .next()
            .unwrap_or_default()
            .to_owned()
    };
    let secret = |line: &&String| line.starts_with("database.url = ") || line.ends_with(" = \"***\"");
    let secrets: Vec<String> = lines(&shown).iter().filter(secret).map(|line| key(line)).collect();
    let values = |text: &str| -> Vec<String> {
        let lines = lines(text).into_iter();
        lines.filter(|line| !secrets.contains(&key(line))).collect()
    };
    let file = values(&shown).join("\n");
    let again = Config::load(&ConfigFile::Required(path_of(file.as_bytes())), [], Vec::new());
    let again = again.unwrap_or_else(|error| panic!("{error}: {file}"));
    assert_eq!(values(&again.effective.to_string()), values(&shown));
}

fn check_error(error: &ConfigError, file: &[u8]) {
    let text = error.to_string();
    match error {
        ConfigError::Read { .. } => assert!(std::str::from_utf8(file).is_err(), "{text}"),
        ConfigError::Toml { line, message, .. } => {
            let lines = file.split(|&byte| byte == b'\n').count();
            assert!((1..=lines).contains(line) && !message.is_empty(), "{text}");
        }
        ConfigError::Unknown { key, nearest, .. } => assert!(text.contains(key) && !nearest.is_empty(), "{text}"),
        ConfigError::Value { key, problem, .. } => {
            assert!(text.starts_with(key) && problem.contains("expected "), "{text}");
        }
        _ => panic!("a mistake of the program: {error:?}"),
    }
}

fn load_flag(key: &'static str, text: &str) -> Result<Config, ConfigError> {
    let flag = FlagValue {
        key,
        origin: "a flag".to_owned(),
        text: Secret::from(text),
    };
    let nowhere = ConfigFile::IfPresent(vec![PathBuf::from("/nonexistent/uptally.toml")]);
    Config::load(&nowhere, [], vec![flag])
}

/// Tokens are shown nowhere, good ones or bad ones.
fn keep_token(key: &'static str, text: &str) {
    let (loaded, other) = (load_flag(key, text), load_flag(key, "\t"));
    let show = |loaded: &Result<Config, ConfigError>| match loaded {
        Ok(config) => format!("{} {config:?}", config.effective),
        Err(error) => format!("{error} {error:?}"),
    };
    let (shown, constant) = (show(&loaded), show(&other) + &show(&load_flag(key, &"x".repeat(40))));
    let quoted = text.len() >= 8 && shown.contains(text) && !constant.contains(text);
    assert!(!quoted, "{text:?} is quoted by {shown}");
}

/// Neither an error nor what is shown quotes a database URL's secrets.
fn keep_password(text: &str) {
    let loaded = load_flag("database.url", text);
    match loaded {
        Err(error) => {
            let shown = format!("{error} {error:?}");
            let constant = ""
                .parse::<DatabaseUrl>()
                .map_or_else(|error| error.to_string(), |_| String::new());
            let quoted = text.len() >= 8 && shown.contains(text) && !constant.contains(text);
            assert!(!quoted, "{text:?} is quoted by {shown}");
        }
        Ok(config) => {
            let url = config.database.url.expect("a URL that was given");
            let connection = url.connection().driver();
            let Some(password) = connection.get_password() else {
                return;
            };
            let password = String::from_utf8_lossy(password);
            let elsewhere = format!(
                "postgres://{}:***@ :5432/{}?sslmode=verify-full ?sslmode=disable {:?} {:?} {:?}",
                connection.get_user().unwrap_or_default(),
                connection.get_dbname().unwrap_or_default(),
                connection.get_hosts(),
                connection.get_hostaddrs(),
                connection.get_ports(),
            );
            let hidden = password.len() < 3 || elsewhere.contains(&*password) || !url.to_string().contains(&*password);
            assert!(hidden, "{text:?} is shown as {url}");
        }
    }
}
