//! Of the layers, the errors and what is shown.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a failed step is a failed test")]

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use super::keys::KeyKind;
use super::*;

/// A configuration file with `toml` in it, environment variables and flags (key, flag, text).
struct Given<'a> {
    toml: &'a str,
    env: &'a [(&'a str, &'a str)],
    flags: &'a [(&'static str, &'a str, &'a str)],
}

impl Given<'_> {
    fn load(&self) -> Result<Config, String> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("uptally.toml");
        fs::write(&path, self.toml).unwrap();
        let env = self.env.iter().map(|(name, text)| (name.into(), text.into()));
        let flag = |&(key, origin, text): &(&'static str, &str, &str)| FlagValue {
            key,
            origin: origin.to_owned(),
            text: text.into(),
        };
        let flags = self.flags.iter().map(flag).collect();
        let outcome = Config::load(&ConfigFile::Required(path.clone()), env, flags);
        let path = path.display().to_string();
        outcome.map_err(|error| error.to_string().replace(&path, "FILE"))
    }
}

fn toml(toml: &str) -> Given<'_> {
    Given {
        toml,
        env: &[],
        flags: &[],
    }
}

fn env<'a>(env: &'a [(&'a str, &'a str)]) -> Given<'a> {
    Given {
        toml: "",
        env,
        flags: &[],
    }
}

fn shown_line(config: &Config, key: &str) -> String {
    let shown = config.effective.to_string();
    let line = shown.lines().find(|line| line.contains(key));
    line.expect("every key is shown").to_owned()
}

#[test]
fn each_layer_wins_over_those_before_it() {
    const KEY: &str = "http.listen";
    const TOML: &str = "[http]\nlisten = '127.0.0.1:2'";
    const ENV: &[(&str, &str)] = &[("UPTALLY__HTTP__LISTEN", "127.0.0.1:3")];
    const FLAG: &[(&str, &str, &str)] = &[(KEY, "flag --listen", "127.0.0.1:4")];
    for (toml, env, flags, port, origin) in [
        ("", &[][..], &[][..], 8080, "default"),
        (TOML, &[], &[], 2, "uptally.toml"),
        (TOML, ENV, &[], 3, "env UPTALLY__HTTP__LISTEN"),
        (TOML, ENV, FLAG, 4, "flag --listen"),
        (TOML, &[], FLAG, 4, "flag --listen"),
        ("", ENV, &[], 3, "env UPTALLY__HTTP__LISTEN"),
    ] {
        let config = Given { toml, env, flags }.load().unwrap();
        assert_eq!(config.http.listen.port(), port);
        let line = shown_line(&config, KEY);
        let start = format!("{KEY} = \"127.0.0.1:{port}\"   # from ");
        assert!(line.starts_with(&start) && line.ends_with(origin), "{line}");
    }
}

#[test]
fn values_reach_their_part_with_their_type() {
    let config = toml(
        "[database]\nconnect_timeout_ms = 100\n[report]\nas_of = 2023-01-25T18:13:22Z\n\
         windows = 'rolling'\nclosed = 'excluded'\n[feed]\nwake = 'poll'\n[log]\nformat = 'json'\n\
         [rollup]\nretention_days = 16\n[state]\ndir = '/srv/uptally'",
    )
    .load()
    .unwrap();
    assert_eq!(config.database.connect_timeout, Duration::from_millis(100));
    assert_eq!(config.report.as_of.to_string(), "2023-01-25T18:13:22Z");
    assert_eq!(config.report.windows, Windows::Rolling);
    assert_eq!(config.report.closed, ClosedTime::Excluded);
    assert_eq!(config.feed.wake, Wake::Poll);
    assert_eq!(config.log.format, LogFormat::Json);
    assert_eq!(config.rollup.retention_days, 16);
    assert_eq!(config.state.dir.as_deref(), Some(Path::new("/srv/uptally")));
    let config = env(&[("UPTALLY__FEED__AWAKE_FOR_MS", "0")]).load().unwrap();
    assert_eq!(config.feed.awake_for, Duration::ZERO);
}

#[test]
fn an_unknown_key_is_named_with_its_origin_and_its_neighbour() {
    for (given, message) in [
        (
            toml("[http]\nlistn = '127.0.0.1:1'"),
            "unknown key http.listn (from FILE); the nearest known key is http.listen",
        ),
        (
            toml("[http.tls]\ncert = 'x'"),
            "unknown key http.tls (from FILE); the nearest known key is http.hosts",
        ),
        (
            toml("listen = '127.0.0.1:1'"),
            "unknown key listen (from FILE); the nearest known key is http.listen",
        ),
        (
            env(&[("UPTALLY__HTTP__LISTN", "127.0.0.1:1")]),
            "unknown key http.listn (from env UPTALLY__HTTP__LISTN); \
             the nearest known key is UPTALLY__HTTP__LISTEN",
        ),
        (
            env(&[("UPTALLY__FEED_WAKE", "poll")]),
            "unknown key feed_wake (from env UPTALLY__FEED_WAKE); \
             the nearest known key is UPTALLY__FEED__WAKE",
        ),
    ] {
        assert_eq!(given.load().unwrap_err(), message);
    }
    // Variables of others are none of ours.
    assert!(env(&[("UPTALLY_X", "1"), ("HTTP__LISTEN", "x")]).load().is_ok());
}

#[test]
fn a_wrong_value_says_what_was_expected() {
    for (given, message) in [
        (
            toml("[http]\nconnections_max = 0"),
            "http.connections_max: expected a whole number from 1 to 65536, found 0 (from FILE)",
        ),
        (
            toml("[http]\nconnections_max = 1.5"),
            "http.connections_max: expected a whole number from 1 to 65536, found 1.5 (from FILE)",
        ),
        (
            toml("[http]\nconnections_max = '256'"),
            "http.connections_max: expected a whole number from 1 to 65536, found \"256\" (from FILE)",
        ),
        (
            toml("[http]\nconnections_max = true"),
            "http.connections_max: expected a whole number from 1 to 65536, found true (from FILE)",
        ),
        (
            toml("[http]\nlisten = 8080"),
            "http.listen: expected a text in quotes, found 8080 (from FILE)",
        ),
        (
            toml("[http]\nlisten = ['127.0.0.1:1']"),
            "http.listen: expected a text in quotes, found a list (from FILE)",
        ),
        (
            env(&[("UPTALLY__HTTP__LISTEN", "localhost")]),
            "http.listen: expected an address and a port such as 127.0.0.1:8080 or [::1]:8080, \
             found \"localhost\" (from env UPTALLY__HTTP__LISTEN)",
        ),
        (
            env(&[("UPTALLY__ROLLUP__RETENTION_DAYS", "soon")]),
            "rollup.retention_days: expected a whole number from 16 to 36500, found \"soon\" \
             (from env UPTALLY__ROLLUP__RETENTION_DAYS)",
        ),
        (
            toml("[feed]\nwake = 'Notify'"),
            "feed.wake: expected notify or poll, found \"Notify\" (from FILE)",
        ),
        (
            toml("[log]\nfilter = 'uptally=loud'"),
            "log.filter: expected log directives such as info or info,uptally::feed=debug, \
             found \"uptally=loud\" (from FILE)",
        ),
        (
            toml("[report]\noutput_url = ''"),
            "report.output_url: expected a directory or the URL of an object store; \
             what was found is not shown (from FILE)",
        ),
        (
            toml("[state]\ndir = ''"),
            "state.dir: expected a directory, found \"\" (from FILE)",
        ),
    ] {
        assert_eq!(given.load().unwrap_err(), message);
    }
    let long = toml(&format!("[feed]\nwake = '{}'", "x".repeat(1 << 20))).load();
    assert!(long.unwrap_err().len() < 200);
}

#[test]
fn a_file_that_is_not_toml_is_named_with_the_line() {
    for (text, line) in [
        ("[http]\nlisten = = 1", 2),
        ("\n\n[http\n", 3),
        ("[http]\nlisten = '127.0.0.1:1'\nlisten = '127.0.0.1:2'", 3),
        ("[http]\nconnections_max = 99999999999999999999", 1),
    ] {
        let error = toml(text).load().unwrap_err();
        assert!(error.starts_with(&format!("FILE, line {line}: ")), "{error}");
        assert!(!error.contains('\n'), "{error}");
    }
}

#[test]
fn the_default_file_may_be_absent_the_named_one_not() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("none.toml");
    let second = dir.path().join("second.toml");
    let either = ConfigFile::IfPresent(vec![path.clone(), second.clone()]);
    let load = || Config::load(&either, [], Vec::new()).unwrap().http.connections_max;
    assert_eq!(load(), 256);
    fs::write(second, "[http]\nconnections_max = 2").unwrap();
    assert_eq!(load(), 2);
    fs::write(&path, "[http]\nconnections_max = 1").unwrap();
    assert_eq!(load(), 1, "the first that is there, alone");
    fs::remove_file(&path).unwrap();
    let missing = Config::load(&ConfigFile::Required(path), [], Vec::new());
    assert!(matches!(missing, Err(ConfigError::Read { .. })));
    // A directory is there, but is no file.
    let present = ConfigFile::IfPresent(vec![dir.path().to_owned()]);
    assert!(matches!(
        Config::load(&present, [], Vec::new()),
        Err(ConfigError::Read { .. })
    ));
}

#[test]
fn passwords_are_shown_nowhere() {
    const PASSWORD: &str = "hunter2";
    let url = format!("postgres://ann:{PASSWORD}@db.example/uptime");
    let flag = Given {
        toml: "",
        env: &[],
        flags: &[("database.url", "env DATABASE_URL", &url)],
    };
    let config = flag.load().unwrap();
    assert_eq!(
        shown_line(&config, "database.url"),
        "database.url = \"postgres://ann:***@db.example:5432/uptime?sslmode=verify-full\"   # from env DATABASE_URL"
    );
    let connection = config.database.url.as_ref().unwrap().connection();
    assert_eq!(connection.driver().get_password(), Some(PASSWORD.as_bytes()));
    assert!(!format!("{config:?}{}", config.effective).contains(PASSWORD));
    let flag = FlagValue {
        key: "database.url",
        origin: "flag --database-url".to_owned(),
        text: url.as_str().into(),
    };
    assert!(!format!("{flag:?}").contains(PASSWORD));

    for toml_text in [
        format!("[database]\nurl = 'postgres://ann:{PASSWORD}@'"),
        format!("[database]\nurl = 'postgres://ann:{PASSWORD}@db.example/uptime"),
        format!("[database]\nurl = postgres://ann:{PASSWORD}@db.example/uptime"),
        format!("[database]\nurl = ['{PASSWORD}']"),
        format!("[database]\nurl = {{ password = '{PASSWORD}' }}"),
        format!("[database]\nurl = 'a'\nurl = '{PASSWORD}'"),
        format!("[report]\noutput_url = 's3://key:{PASSWORD}@bucket/x'"),
    ] {
        let error = toml(&toml_text).load().unwrap_err();
        assert!(!error.contains(PASSWORD), "{error}");
    }
}

#[test]
fn the_url_may_be_in_a_file() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("url").display().to_string();
    let variable = [("UPTALLY__DATABASE__URL_FILE", path.as_str())];
    let given = |text: &str| {
        fs::write(&path, text).unwrap();
        let given = env(&variable).load().unwrap().database.given();
        given.map_err(|error| error.to_string().replace(&path, "FILE"))
    };
    let url = given("\n postgres://ann:hunter2@db.example/uptime \n")
        .unwrap()
        .unwrap();
    assert_eq!(url.connection().driver().get_password(), Some(&b"hunter2"[..]));
    for text in ["", "\n", "postgres://ann:hunter2@"] {
        let error = given(text).unwrap_err();
        assert!(error.starts_with("database.url_file: expected "), "{error}");
        assert!(
            error.ends_with(" (FILE, line 1)") && !error.contains("hunter2"),
            "{error}"
        );
    }
    // Only who needs it reads it.
    fs::remove_file(&path).unwrap();
    let config = env(&variable).load().unwrap();
    let error = config.database.given().unwrap_err().to_string();
    assert_eq!(error, format!("database.url_file: cannot read {path}"));
    assert!(toml("").load().unwrap().database.given().unwrap().is_none());
}

#[test]
fn a_url_and_a_file_with_one_set_each_other_aside() {
    const FILE: &str = "[database]\nurl_file = '/url'";
    const FLAG: &[(&str, &str, &str)] = &[("database.url", "env DATABASE_URL", "host=a")];
    let ways = |toml, env, flags| Given { toml, env, flags }.load();
    let set = |config: Config| (config.database.url.is_some(), config.database.url_file.is_some());
    assert_eq!(set(ways(FILE, &[], &[]).unwrap()), (false, true));
    let config = ways(FILE, &[], FLAG).unwrap();
    assert_eq!(
        shown_line(&config, "url_file"),
        "# database.url_file is not set   # from default"
    );
    assert_eq!(set(config), (true, false));
    let env = [("UPTALLY__DATABASE__URL_FILE", "/other")];
    assert_eq!(
        set(ways("[database]\nurl = 'host=b'", &env, &[]).unwrap()),
        (false, true)
    );
    assert_eq!(set(ways(FILE, &env, &[]).unwrap()), (false, true));
    let both = ways("[database]\nurl = 'host=b'\nurl_file = '/url'", &[], &[]);
    let error = both.unwrap_err();
    assert!(
        error.contains("expected one of database.url and database.url_file, found both (from FILE)"),
        "{error}"
    );
}

#[test]
fn credentials_of_the_service_are_the_files_of_their_keys() {
    let dir = tempfile::tempdir().unwrap();
    for name in [
        "uptally.database.url",
        "uptally.http.read_tokens",
        "uptally.log",
        "other",
    ] {
        fs::write(dir.path().join(name), "host=a").unwrap();
    }
    let path = |name: &str| dir.path().join(name);
    let directory = path("").display().to_string();
    let handed = ("CREDENTIALS_DIRECTORY", directory.as_str());
    let toml = "[database]\nurl = 'host=b'\n[http]\nread_tokens_file = '/tokens'";
    let given = Given {
        toml,
        env: &[handed],
        flags: &[],
    };
    let config = given.load().unwrap();
    assert_eq!(config.database.url_file, Some(path("uptally.database.url")));
    assert_eq!(config.http.read_tokens_file, Some(path("uptally.http.read_tokens")));
    assert_eq!(config.http.trigger_tokens_file, None);
    assert!(shown_line(&config, "database.url_file").ends_with("# from credential uptally.database.url"));
    assert!(config.database.given().unwrap().is_some());
    // What whoever starts the program says of it goes before.
    let config = env(&[handed, ("UPTALLY__HTTP__READ_TOKENS_FILE", "/mine")])
        .load()
        .unwrap();
    assert_eq!(config.http.read_tokens_file.as_deref(), Some(Path::new("/mine")));
}

#[test]
fn an_idle_daemon_cannot_be_told_to_call_itself_lagging() {
    let error = toml("[rollup]\nlag_ready_ms_max = 1000").load().unwrap_err();
    assert_eq!(
        error,
        "feed.poll_interval_ms: expected less than rollup.lag_ready_ms_max, which is 1000 (from FILE), found 1000: \
         a daemon with nothing to do would call itself lagging (from default)"
    );
    let both = toml("[feed]\npoll_interval_ms = 60000\n[rollup]\nlag_ready_ms_max = 60001");
    assert!(both.load().is_ok());
    assert!(env(&[("UPTALLY__FEED__POLL_INTERVAL_MS", "5000")]).load().is_err());
}

#[test]
fn tokens_are_read_and_shown_nowhere() {
    const ONE: &str = "one-0123456789012345678901234567890";
    const TWO: &str = "two-0123456789012345678901234567890";
    let both = format!(" {ONE}\n{TWO} ");
    let given = [("UPTALLY__HTTP__READ_TOKENS", both.as_str())];
    let config = env(&given).load().unwrap();
    assert_eq!(config.http.tokens.read, [ONE.parse().unwrap(), TWO.parse().unwrap()]);
    assert!(config.http.access().is_ok());
    let line = shown_line(&config, "http.read_tokens =");
    assert_eq!(
        line,
        "http.read_tokens = \"***\"   # from env UPTALLY__HTTP__READ_TOKENS"
    );
    assert!(!format!("{config:?}").contains("0123"), "{config:?}");
    for text in ["", "  ", "hunter2-short", "one-0123456789012345678901234567890 hunter2"] {
        let error = env(&[("UPTALLY__HTTP__TRIGGER_TOKENS", text)]).load().unwrap_err();
        assert!(error.contains("at least 32"), "{error}");
        assert!(!error.contains("hunter2") && !error.contains("0123"), "{error}");
    }

    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("tokens").display().to_string();
    let path = path.as_str();
    let open = [
        ("UPTALLY__HTTP__LISTEN", "0.0.0.0:1"),
        ("UPTALLY__HTTP__READ_TOKENS_FILE", path),
    ];
    let access = |text: &str| {
        fs::write(path, text).unwrap();
        env(&open)
            .load()
            .unwrap()
            .http
            .access()
            .map_err(|error| error.to_string())
    };
    assert!(access(&format!("# of the dashboard\n\n  {ONE}\n{TWO}")).is_ok());
    for (text, problem) in [
        ("", "found none"),
        ("# nothing\n", "found none"),
        (&format!("{ONE}\nhunter2\n"), ", line 2)"),
    ] {
        let error = access(text).unwrap_err();
        assert!(
            error.starts_with("http.read_tokens_file: ") && error.contains(problem),
            "{error}"
        );
        assert!(!error.contains("hunter2"), "{error}");
    }
    fs::remove_file(path).unwrap();
    let error = env(&open).load().unwrap().http.access().unwrap_err().to_string();
    assert!(error.starts_with("http.read_tokens_file: cannot read /"), "{error}");
    let error = env(&open[..1]).load().unwrap().http.access().unwrap_err();
    assert!(matches!(error, ConfigError::OpenToAll(_)), "{error}");
}

#[test]
fn names_of_hosts_are_names() {
    let config = env(&[("UPTALLY__HTTP__HOSTS", "a.example, b_c")]).load().unwrap();
    assert_eq!(config.http.hosts, ["a.example", "b_c"]);
    for text in ["", ",", "a:80", "http://a"] {
        assert!(env(&[("UPTALLY__HTTP__HOSTS", text)]).load().is_err(), "{text}");
    }
}

#[test]
fn every_key_is_shown_once_and_the_values_are_toml() {
    let config = toml("").load().unwrap();
    let shown = config.effective.to_string();
    assert_eq!(shown.lines().count(), KEYS.len());
    let table: toml::Table = shown.parse().unwrap();
    assert_eq!(flat(&table), defaults());
    for line in shown.lines() {
        assert!(line.ends_with("   # from default"), "{line}");
    }
}

#[test]
fn a_text_is_shown_on_one_line_that_reads_back() {
    let dir = "\n\na\"\\\u{1b}[1m   # from b\t\r\n''\u{7f}\u{85}é";
    let config = env(&[("UPTALLY__STATE__DIR", dir)]).load().unwrap();
    let line = shown_line(&config, "state.dir");
    assert!(!line.chars().any(char::is_control), "{line}");
    let table: toml::Table = line.parse().unwrap();
    assert_eq!(table["state"]["dir"].as_str(), Some(dir));
}

#[test]
fn the_committed_file_shows_every_key_and_changes_nothing() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(CONFIG_FILES_DEFAULT[0]);
    let text = fs::read_to_string(&path).unwrap();
    assert_eq!(flat(&text.parse().unwrap()), []);

    let (mut comment, mut section) = (String::new(), "");
    let (mut uncommented, mut loadable) = (String::new(), String::new());
    for line in text.lines() {
        if let Some(prose) = line.strip_prefix("# ") {
            comment.push_str(prose);
            comment.push(' ');
            continue;
        }
        let key = line.strip_prefix('#').and_then(|line| line.split_once(" = "));
        if let Some((name, _)) = key {
            let name = format!("{section}.{name}");
            let key = Key::find(&name).expect(&name);
            assert!(!comment.is_empty(), "{name} has a comment");
            if let KeyKind::Integer { min, max, .. } = key.kind {
                assert!(comment.contains(&format!("{min} to {max}")), "range of {name}");
            }
            let set = line.trim_start_matches('#').to_owned() + "\n";
            uncommented.push_str(&set);
            if key.masked {
                // A secret that everybody can read here must not be taken for one.
                assert!(toml(&format!("[{section}]\n{set}")).load().is_err(), "{name}");
            } else if name == "database.url_file" {
                // Instead of the URL, not beside it.
                toml(&format!("[{section}]\n{set}")).load().unwrap();
            } else {
                loadable.push_str(&set);
            }
        } else {
            section = line.trim_matches(['[', ']']);
            let line = line.to_owned() + "\n";
            uncommented.push_str(&line);
            loadable.push_str(&line);
        }
        comment.clear();
    }

    let all = flat(&uncommented.parse().unwrap());
    let names: BTreeSet<_> = all.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, KEYS.iter().map(|key| key.name).collect());
    let optional = |name: &str| matches!(Key::find(name).unwrap().kind, KeyKind::Optional);
    let with_default: Vec<_> = all.iter().filter(|(name, _)| !optional(name)).cloned().collect();
    assert_eq!(with_default, defaults());
    // The examples of the optional keys are good ones too.
    toml(&loadable).load().unwrap();
}

/// `section.name` and value, ordered by name.
fn flat(table: &toml::Table) -> Vec<(String, toml::Value)> {
    let mut all = Vec::new();
    for (section, values) in table {
        for (name, value) in values.as_table().unwrap() {
            all.push((format!("{section}.{name}"), value.clone()));
        }
    }
    all.sort_by(|a, b| a.0.cmp(&b.0));
    all
}

fn defaults() -> Vec<(String, toml::Value)> {
    let default = |key: &Key| {
        let value: toml::Value = match key.kind {
            KeyKind::Integer { default, .. } => default.into(),
            KeyKind::Text(default) => default.into(),
            KeyKind::Optional => return None,
        };
        Some((key.name.to_owned(), value))
    };
    let mut all: Vec<_> = KEYS.iter().filter_map(default).collect();
    all.sort_by(|a, b| a.0.cmp(&b.0));
    all
}
