//! Of reading the command line. Its environment variables are tested where the program is started
//! (`tests/config.rs`): the tests of one process share their environment.
#![allow(clippy::unwrap_used, reason = "a failed step is a failed test")]

use std::path::{Path, PathBuf};

use clap::error::ErrorKind;

use super::*;

fn read(args: &str) -> Result<Invocation, clap::Error> {
    let args = args.split_whitespace().map(OsString::from);
    Invocation::read([OsString::from("uptally")].into_iter().chain(args))
}

fn command(args: &str) -> Command {
    match read(args) {
        Ok(Invocation::Run { command, .. }) => command,
        other => panic!("{args}: {other:?}"),
    }
}

/// The keys that the command line sets, with origin and text, without those of global options that
/// the environment of the test may set.
fn flags(args: &str) -> Vec<(&'static str, String, String)> {
    let Ok(Invocation::Run { flags, .. }) = read(args) else {
        panic!("{args}");
    };
    flags
        .into_iter()
        .filter(|flag| flag.origin.starts_with("flag "))
        .map(|flag| (flag.key, flag.origin, flag.text.expose().to_owned()))
        .collect()
}

fn error_kind(args: &str) -> ErrorKind {
    read(args).unwrap_err().kind()
}

#[test]
fn the_definition_is_consistent() {
    Cli::command().debug_assert();
}

#[test]
fn every_command_reads() {
    for args in [
        "serve",
        "import --hours h.csv",
        "report",
        "verify",
        "rebuild",
        "migrate",
        "config",
        "demo",
        "generate --out d",
    ] {
        command(args);
        assert_eq!(error_kind(&format!("{args} --help")), ErrorKind::DisplayHelp);
    }
    assert_eq!(error_kind("--version"), ErrorKind::DisplayVersion);
    assert_eq!(error_kind(""), ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand);
    assert_eq!(error_kind("serv"), ErrorKind::InvalidSubcommand);
    assert_eq!(error_kind("serve --listn x"), ErrorKind::UnknownArgument);
}

#[test]
fn global_options_stand_before_or_after_the_command() {
    let expected = [
        ("database.url", "flag --database-url", "host=a"),
        ("state.dir", "flag --state-dir", "/s"),
    ]
    .map(|(key, origin, text)| (key, origin.to_owned(), text.to_owned()));
    for args in [
        "--database-url host=a --state-dir /s --config c.toml verify",
        "verify --database-url host=a --state-dir /s --config c.toml",
        "--state-dir /s verify --database-url host=a --config c.toml",
    ] {
        assert_eq!(flags(args), expected, "{args}");
        assert!(matches!(
            read(args),
            Ok(Invocation::Run { file: ConfigFile::Required(path), .. }) if path == Path::new("c.toml")
        ));
    }
    assert!(matches!(
        read("verify"),
        Ok(Invocation::Run { file: ConfigFile::IfPresent(paths), .. })
            if paths == CONFIG_FILES_DEFAULT.map(PathBuf::from)
    ));
}

#[test]
fn manuals_tell_of_all_that_a_user_may_type() {
    let names = |command: clap::Command| -> Vec<String> {
        let names = command.get_subcommands().map(|verb| verb.get_name().to_owned());
        names
            .chain(command.get_arguments().map(|arg| arg.get_id().to_string()))
            .collect()
    };
    let (mut all, told) = (names(Cli::command()), names(super::command()));
    all.retain(|name| name != "postgres-guard");
    assert_eq!(told, all);
    let help = |command: clap::Command| command.get_about().map(ToString::to_string);
    assert_eq!(help(super::command()), help(Cli::command()));
}

#[test]
fn flags_of_commands_set_keys() {
    assert_eq!(
        flags("serve --listen 127.0.0.1:1"),
        [("http.listen", "flag --listen".to_owned(), "127.0.0.1:1".to_owned())]
    );
    let report = "report --as-of latest --windows rolling --closed excluded -o r.csv";
    let keys: Vec<_> = flags(report).into_iter().map(|(key, ..)| key).collect();
    assert_eq!(keys, ["report.as_of", "report.windows", "report.closed"]);
    let Command::Report(report) = command(report) else {
        panic!("not a report");
    };
    assert_eq!(report.output.as_deref(), Some(Path::new("r.csv")));
    assert_eq!(error_kind("report --windows lunar"), ErrorKind::InvalidValue);
}

#[test]
fn an_import_names_files_and_stdin_at_most_once() {
    let Command::Import(import) = command("import --activity a.csv --activity - --timezones t.csv --rejects r.csv")
    else {
        panic!("not an import");
    };
    assert_eq!(import.activity, [Path::new("a.csv"), Path::new("-")]);
    assert_eq!(import.hours, None);
    assert_eq!(import.timezones.as_deref(), Some(Path::new("t.csv")));
    assert_eq!(import.rejects.as_deref(), Some(Path::new("r.csv")));
    assert!(!import.strict);
    for args in ["import", "import --strict"] {
        assert_eq!(error_kind(args), ErrorKind::MissingRequiredArgument);
    }
    for args in [
        "import --activity - --activity -",
        "import --activity - --hours -",
        "import --closures - --timezones -",
        "import --strict --rejects r.csv --hours h.csv",
    ] {
        assert_eq!(error_kind(args), ErrorKind::ArgumentConflict, "{args}");
    }
}

#[test]
fn a_demo_has_a_size() {
    let Command::Demo(demo) = command("demo") else {
        panic!("not a demo");
    };
    assert_eq!((demo.stores, demo.once, demo.seed), (2000, false, None));
    let Command::Demo(demo) = command("demo --stores 5 --once --seed 7") else {
        panic!("not a demo");
    };
    assert_eq!((demo.stores, demo.once, demo.seed), (5, true, Some(7)));
    assert_eq!(error_kind("demo --stores 0"), ErrorKind::ValueValidation);
}

#[test]
fn a_generated_fleet_has_the_size_of_the_real_one_unless_told() {
    let Command::Generate(fleet) = command("generate --out d") else {
        panic!("not a fleet");
    };
    assert_eq!((fleet.stores, fleet.days, fleet.poll_minutes), (13_559, 8, 60));
    assert_eq!((fleet.seed, fleet.order), (1, RowOrder::Time));
    assert_eq!(error_kind("generate"), ErrorKind::MissingRequiredArgument);
    for refused in ["--stores 0", "--days 0", "--poll-minutes 0", "--order random"] {
        let kind = error_kind(&format!("generate --out d {refused}"));
        assert!(
            matches!(kind, ErrorKind::ValueValidation | ErrorKind::InvalidValue),
            "{refused}"
        );
    }
}

#[test]
fn the_guard_takes_any_arguments_and_is_not_shown() {
    assert!(matches!(
        read("postgres-guard /data --config -D x"),
        Ok(Invocation::GuardPostgres)
    ));
    let help = Cli::command().render_long_help().to_string();
    assert!(!help.contains("postgres-guard"));
}
