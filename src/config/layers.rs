//! The layers of the configuration laid over each other, and strict reading of the result.
//!
//! A value never changes its type on the way: `1.5` is no whole number and `true` is not 1. Texts
//! from the environment and from flags take the type that their key has.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::path::{Path, PathBuf};

use config::{FileFormat, Source as _, Value, ValueKind};

use super::ConfigError;
use super::keys::{KEYS, Key, KeyKind};
use super::secret::Secret;
use crate::text::quoted;

/// How the environment names a key: `http.listen` is `UPTALLY__HTTP__LISTEN`.
const ENV_PREFIX: &str = "UPTALLY__";

/// Characters of a refused value that an error repeats.
const FOUND_CHARS_MAX: usize = 80;

/// How systemd names the directory of the secrets that it hands over, and how those for us are called: the file
/// `uptally.database.url` in it is what `database.url_file` names, and so for every key that ends in `_file`.
const CREDENTIALS_VARIABLE: &str = "CREDENTIALS_DIRECTORY";
const CREDENTIAL_PREFIX: &str = "uptally.";

/// Two keys that say the same. A layer with one of them sets aside what the layers before it say by the other.
const EITHER: [&str; 2] = ["database.url", "database.url_file"];

/// The file of the configuration.
#[derive(Debug, Clone)]
pub enum ConfigFile {
    /// The first of these that is there is read, if any is.
    IfPresent(Vec<PathBuf>),
    /// Named by the user: must be there.
    Required(PathBuf),
}

/// A key set by a flag of the command line, or by the environment variable that stands in for it.
#[derive(Debug, Clone)]
pub struct FlagValue {
    /// `section.name`.
    pub key: &'static str,
    /// Where it comes from, as users shall see it: `flag --listen`, `env DATABASE_URL`.
    pub origin: String,
    /// The value.
    pub text: Secret,
}

/// A key that a layer sets.
type Entry = (&'static Key, Value);

/// The merged values. Not `Debug`: secrets are in it.
pub(super) struct Layers(Value);

impl Layers {
    /// Defaults, then `file`, then the credentials that `env` leads to, then its variables that begin
    /// with [`ENV_PREFIX`], then `flags`: the later one wins.
    pub(super) fn merge(
        file: &ConfigFile,
        env: impl IntoIterator<Item = (OsString, OsString)>,
        flags: Vec<FlagValue>,
    ) -> Result<Self, ConfigError> {
        let env: Vec<_> = env.into_iter().collect();
        let mut all = defaults();
        for layer in [
            read_file(file)?,
            read_credentials(&env),
            read_env(env)?,
            read_flags(flags)?,
        ] {
            lay_over(&mut all, layer)?;
        }
        let mut builder = config::Config::builder();
        for (key, value) in all {
            builder = builder.set_override(key.name, value)?;
        }
        Ok(Layers(builder.build()?.cache))
    }

    /// The whole number of `key`, in the range of the key and of `T`.
    pub(super) fn integer<T: TryFrom<i64>>(&self, key: &str) -> Result<T, ConfigError> {
        let known = Key::find(key);
        let Some(KeyKind::Integer { min, max, .. }) = known.map(|key| key.kind) else {
            return Err(ConfigError::not_a_key(key));
        };
        let value = self.get(key).ok_or_else(|| ConfigError::not_a_key(key))?;
        match value.kind {
            ValueKind::I64(number) if (min..=max).contains(&number) => number.try_into().ok(),
            _ => None,
        }
        .ok_or_else(|| refused(key, value, &format!("expected a whole number from {min} to {max}")))
    }

    /// Refuses a number that is not below that of the key `bound`; `why` says what would come of it.
    pub(super) fn check_below(&self, key: &str, bound: &str, why: &str) -> Result<(), ConfigError> {
        let (number, max): (i64, i64) = (self.integer(key)?, self.integer(bound)?);
        let origin = |key| self.get(key).and_then(Value::origin).unwrap_or_default().to_owned();
        if number < max {
            return Ok(());
        }
        Err(ConfigError::Value {
            key: key.to_owned(),
            problem: format!(
                "expected less than {bound}, which is {max} (from {}), found {number}: {why}",
                origin(bound)
            ),
            origin: origin(key),
        })
    }

    /// What `read` makes of the text of `key`. The error of `read` begins with "expected".
    pub(super) fn text<T, E: ToString>(
        &self,
        key: &str,
        read: impl FnOnce(&str) -> Result<T, E>,
    ) -> Result<T, ConfigError> {
        let found = self.optional_text(key, read)?;
        found.ok_or_else(|| ConfigError::not_a_key(key))
    }

    /// Like [`Layers::text`]; nothing if the key is not set.
    pub(super) fn optional_text<T, E: ToString>(
        &self,
        key: &str,
        read: impl FnOnce(&str) -> Result<T, E>,
    ) -> Result<Option<T>, ConfigError> {
        let Some(value) = self.get(key) else {
            return Ok(None);
        };
        let ValueKind::String(text) = &value.kind else {
            return Err(refused(key, value, "expected a text in quotes"));
        };
        read(text)
            .map(Some)
            .map_err(|error| refused(key, value, &error.to_string()))
    }

    /// The value of a key, with its origin; nothing if it is not set.
    pub(super) fn get(&self, key: &str) -> Option<&Value> {
        let (section, name) = key.split_once('.')?;
        table(&self.0)?
            .get(section)
            .and_then(table)
            .and_then(|values| values.get(name))
    }
}

fn table(value: &Value) -> Option<&config::Map<String, Value>> {
    match &value.kind {
        ValueKind::Table(table) => Some(table),
        _ => None,
    }
}

fn defaults() -> Vec<Entry> {
    let origin = "default".to_owned();
    let value = |key: &'static Key| {
        let kind: ValueKind = match key.kind {
            KeyKind::Integer { default, .. } => default.into(),
            KeyKind::Text(default) => default.into(),
            KeyKind::Optional => return None,
        };
        Some((key, Value::new(Some(&origin), kind)))
    };
    KEYS.iter().filter_map(value).collect()
}

/// Puts a layer over those before it.
fn lay_over(all: &mut Vec<Entry>, layer: Vec<Entry>) -> Result<(), ConfigError> {
    let mut ways = layer.iter().filter(|(key, _)| EITHER.contains(&key.name));
    if let Some((one, _)) = ways.next() {
        if let Some((other, value)) = ways.find(|(other, _)| other.name != one.name) {
            return Err(ConfigError::Value {
                key: other.name.to_owned(),
                problem: format!("expected one of {} and {}, found both", EITHER[0], EITHER[1]),
                origin: value.origin().unwrap_or_default().to_owned(),
            });
        }
        all.retain(|(key, _)| !EITHER.contains(&key.name));
    }
    all.extend(layer);
    Ok(())
}

fn read_file(file: &ConfigFile) -> Result<Vec<Entry>, ConfigError> {
    let path = match file {
        ConfigFile::Required(path) => path,
        ConfigFile::IfPresent(paths) => {
            let is_there = |path: &&PathBuf| !matches!(path.try_exists(), Ok(false));
            let Some(path) = paths.iter().find(is_there) else {
                return Ok(Vec::new());
            };
            path
        }
    };
    let text = fs::read_to_string(path).map_err(|source| ConfigError::Read {
        path: path.clone(),
        source,
    })?;
    let origin = path.display().to_string();
    let mut found = Vec::new();
    for (section, content) in parse_toml(path, &text)? {
        let ValueKind::Table(values) = content.kind else {
            return Err(unknown(&section, &origin));
        };
        for (name, value) in values {
            let name = format!("{section}.{name}");
            let key = Key::find(&name).ok_or_else(|| unknown(&name, &origin))?;
            found.push((key, Value::new(Some(&origin), value.kind)));
        }
    }
    Ok(found)
}

fn parse_toml(path: &Path, text: &str) -> Result<impl Iterator<Item = (String, Value)> + use<>, ConfigError> {
    let parsed = config::File::from_str(text, FileFormat::Toml).collect();
    let sections = parsed.map_err(|error| {
        // The parser's whole message quotes the line, and there may be a password on it.
        let toml = match &error {
            config::ConfigError::FileParse { cause, .. } => cause.downcast_ref::<toml::de::Error>(),
            _ => None,
        };
        let before = toml
            .and_then(toml::de::Error::span)
            .and_then(|span| text.get(..span.start));
        ConfigError::Toml {
            path: path.to_path_buf(),
            line: before.map_or(1, |before| before.matches('\n').count() + 1),
            message: toml.map_or("expected TOML", |toml| toml.message()).to_owned(),
        }
    })?;
    Ok(sections.into_iter())
}

/// The secrets that systemd hands over, each as the file that its key names.
fn read_credentials(env: &[(OsString, OsString)]) -> Vec<Entry> {
    let Some((_, dir)) = env.iter().find(|(variable, _)| variable == CREDENTIALS_VARIABLE) else {
        return Vec::new();
    };
    let credential = |key: &'static Key| {
        let name = format!("{CREDENTIAL_PREFIX}{}", key.name.strip_suffix("_file")?);
        let path = Path::new(dir).join(&name);
        let text = path.to_str().filter(|_| path.exists())?;
        Some((key, Value::new(Some(&format!("credential {name}")), text)))
    };
    KEYS.iter().filter_map(credential).collect()
}

fn read_flags(flags: Vec<FlagValue>) -> Result<Vec<Entry>, ConfigError> {
    let read = |flag: FlagValue| {
        let key = Key::find(flag.key).ok_or_else(|| ConfigError::not_a_key(flag.key))?;
        Ok((key, typed(key, &flag.origin, flag.text.expose())))
    };
    flags.into_iter().map(read).collect()
}

fn read_env(env: Vec<(OsString, OsString)>) -> Result<Vec<Entry>, ConfigError> {
    let mut found = Vec::new();
    for (variable, text) in env {
        let Some(variable) = variable.to_str() else {
            continue;
        };
        let Some(name) = variable.strip_prefix(ENV_PREFIX) else {
            continue;
        };
        let name = name.to_lowercase().replace("__", ".");
        let origin = format!("env {variable}");
        let key = Key::find(&name).ok_or_else(|| unknown(&name, &origin))?;
        let text: &OsStr = &text;
        let text = text.to_str().ok_or_else(|| ConfigError::Value {
            key: key.name.to_owned(),
            problem: "expected UTF-8 text".to_owned(),
            origin: origin.clone(),
        })?;
        found.push((key, typed(key, &origin, text)));
    }
    Ok(found)
}

/// A text as a value of the type that `key` has. What cannot be one stays a text, which the reader
/// of the key refuses.
fn typed(key: &Key, origin: &String, text: &str) -> Value {
    let kind: ValueKind = match (key.kind, text.parse::<i64>()) {
        (KeyKind::Integer { .. }, Ok(number)) => number.into(),
        _ => text.into(),
    };
    Value::new(Some(origin), kind)
}

fn unknown(name: &str, origin: &str) -> ConfigError {
    let nearest = Key::nearest(name);
    ConfigError::Unknown {
        key: name.to_owned(),
        origin: origin.to_owned(),
        nearest: if origin.starts_with("env ") {
            format!("{ENV_PREFIX}{}", nearest.replace('.', "__").to_uppercase())
        } else {
            nearest.to_owned()
        },
    }
}

fn refused(key: &str, value: &Value, expected: &str) -> ConfigError {
    let problem = match (&value.kind, Key::find(key)) {
        (_, Some(Key { secret: true, .. })) => format!("{expected}; what was found is not shown"),
        (ValueKind::String(text), _) => format!("{expected}, found {}", quoted(text, FOUND_CHARS_MAX)),
        (ValueKind::Table(_), _) => format!("{expected}, found a table"),
        (ValueKind::Array(_), _) => format!("{expected}, found a list"),
        (other, _) => format!("{expected}, found {other}"),
    };
    ConfigError::Value {
        key: key.to_owned(),
        problem,
        origin: value.origin().unwrap_or_default().to_owned(),
    }
}
