//! What can drift is tested: the papers against the sources, the layers against the table of layers.
//!
//! Nothing here runs the daemon. What the papers say about behaviour is held by the tests that they name; that those
//! exist is checked here.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on fails")]

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use uptally::oracle::{self, RawClosure, RawInterval, RawStore};
use uptally::report::csv;
use uptally::rollup::{Limits, Observation, Rollup};
use uptally::schedule::{Closure, DEFAULT_ZONE, Interval, Schedule, Zone};
use uptally::time::{HOUR_US, MINUTE_US, SECOND_US, Timestamp};
use uptally::window::{ClosedTime, Windows};

/// Longest source file, in lines with its tests: what fits a sitting.
const LINES_MAX: usize = 700;

/// The layers, lowest first. ARCHITECTURE.md has the same table.
const LAYERS: [&[&str]; 8] = [
    &["time", "store", "text"],
    &["schedule", "window"],
    &["rollup", "overview"],
    &["audit", "clock", "db", "failpoint", "feed", "ledger"],
    &["daemon", "import", "live", "report"],
    &["http"],
    &[
        "cluster",
        "demo",
        "fleet",
        "serve",
        "systemd",
        "verify",
        "config",
        "telemetry",
    ],
    &["cli"],
];

/// What the oracle may use: it stands beside the layers and shares no code with what it checks.
const ORACLE_USES: [&str; 3] = ["time", "store", "window"];

/// What the pure layers must not name.
const IMPURE: [&str; 9] = [
    "tokio",
    "tokio_postgres",
    "refinery",
    "axum",
    "hyper",
    "std::fs",
    "std::net",
    "std::env",
    "std::process",
];

#[test]
fn a_module_uses_its_own_layer_and_those_below() {
    let layers: BTreeMap<&str, usize> = (0..)
        .zip(LAYERS)
        .flat_map(|(layer, modules)| modules.iter().map(move |&module| (module, layer)))
        .collect();
    let mut wrong = String::new();
    for (path, text) in sources() {
        let module = module_of(&path);
        for used in used_modules(&text) {
            let allowed = match module.as_str() {
                "lib" | "main" => true,
                "oracle" => used == "oracle" || ORACLE_USES.contains(&used.as_str()),
                _ if used == "oracle" => ["audit", "verify"].contains(&module.as_str()),
                _ => layers[used.as_str()] <= layers[module.as_str()],
            };
            if !allowed {
                writeln!(wrong, "{path} uses {used}, which lies above {module}").unwrap();
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
}

#[test]
fn the_pure_layers_name_nothing_impure() {
    let mut wrong = String::new();
    for (path, text) in sources() {
        let code = code_of(&text);
        let pure = LAYERS[..3].concat().contains(&module_of(&path).as_str());
        for name in IMPURE.iter().filter(|_| pure) {
            if mentions(&code, name) {
                writeln!(wrong, "{path} names {name}").unwrap();
            }
        }
        if path != "src/clock.rs" && mentions(&code, "SystemTime") {
            writeln!(wrong, "{path} reads the time: that is for src/clock.rs").unwrap();
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
}

#[test]
fn the_rooms_of_the_architecture_are_the_layers() {
    let mut written: Vec<(usize, String)> = rows(&section(&read("ARCHITECTURE.md"), "## Rooms"))
        .iter()
        .map(|row| (row[0].parse().unwrap(), spans(&row[1]).remove(0)))
        .collect();
    let mut expected: Vec<(usize, String)> = (0..)
        .zip(LAYERS)
        .flat_map(|(layer, modules)| modules.iter().map(move |module| (layer, (*module).to_owned())))
        .collect();
    written.sort();
    expected.sort();
    assert_eq!(written, expected);
    let declared: BTreeSet<String> = read("src/lib.rs")
        .lines()
        .filter_map(|line| Some(line.strip_prefix("pub mod ")?.strip_suffix(';')?.to_owned()))
        .collect();
    let mut layered: BTreeSet<String> = written.into_iter().map(|(_, module)| module).collect();
    layered.insert("oracle".to_owned());
    assert_eq!(declared, layered, "modules of src/lib.rs");
}

#[test]
fn every_rule_and_promise_says_where_it_lives() {
    let rules: Vec<String> = read("docs/model.md")
        .lines()
        .filter_map(|line| Some(line.strip_prefix("### ")?.to_owned()))
        .collect();
    let architecture = read("ARCHITECTURE.md");
    let table = rows(&section(&architecture, "## Where each rule lives"));
    let promises = rows(&section(&architecture, "## Where each promise lives"));
    let listed: Vec<String> = table.iter().map(|row| row[0].clone()).collect();
    assert_eq!(listed, rules, "one line for each rule, in the model's order");
    let faults = rows(&section(&read("docs/reliability.md"), "## Faults"));
    let mut wrong = String::new();
    let implemented = table.iter().chain(&promises).map(|row| (row, &row[1], false));
    let tested = table
        .iter()
        .chain(&promises)
        .chain(&faults)
        .map(|row| (row, &row[2], true));
    for (row, cell, tested) in implemented.chain(tested) {
        // `file` `item` `item`; `file` `item`
        let mut file = None;
        for span in spans(cell) {
            if span.contains('/') {
                file = Some(read(&span));
                continue;
            }
            let item = span.rsplit("::").next().unwrap();
            let text = file.as_deref().expect("a file comes first");
            let found = if tested {
                text.contains(&format!("fn {item}("))
            } else {
                defines(text, item)
            };
            if !found {
                writeln!(wrong, "{}: no {span}", row[0]).unwrap();
            }
        }
        if file.is_none() {
            writeln!(wrong, "{}: a cell names no file", row[0]).unwrap();
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
}

#[test]
fn what_the_papers_name_exists() {
    let targets = make_targets();
    let commands = commands();
    let migration = migrations();
    let keys = config_keys();
    let mut wrong = String::new();
    for (paper, text) in papers() {
        let dir = Path::new(&paper).parent().unwrap().to_owned();
        for link in links(&text) {
            let (file, anchor) = link.split_once('#').unwrap_or((&link, ""));
            let target = if file.is_empty() {
                root().join(&paper)
            } else {
                root().join(&dir).join(file)
            };
            if !target.exists() {
                writeln!(wrong, "{paper}: link to {link}").unwrap();
            } else if !anchor.is_empty() && !anchors(&fs::read_to_string(&target).unwrap()).contains(anchor) {
                writeln!(wrong, "{paper}: {link} has no such heading").unwrap();
            }
        }
        for span in spans(&text) {
            let names_path = [
                "src/",
                "tests/",
                "docs/",
                "config/",
                "migrations/",
                "examples/",
                "scripts/",
            ]
            .iter()
            .any(|dir| span.starts_with(dir));
            if names_path && !root().join(&span).exists() {
                writeln!(wrong, "{paper}: {span}").unwrap();
            }
            let word = |prefix: &str| Some(span.strip_prefix(prefix)?.split_whitespace().next()?.to_owned());
            if word("make ").is_some_and(|target| !targets.contains(&target)) {
                writeln!(wrong, "{paper}: no target for `{span}`").unwrap();
            }
            if word("uptally ").is_some_and(|command| !commands.contains(&command)) {
                writeln!(wrong, "{paper}: no command for `{span}`").unwrap();
            }
            let table = span.strip_prefix("uptally.").or(span.strip_prefix("public."));
            if table.is_some_and(is_name) && !mentions(&migration, &span) {
                writeln!(wrong, "{paper}: no {span} in the schema").unwrap();
            }
            if let Some((part, name)) = span.split_once('.')
                && keys.iter().any(|key| key.starts_with(&format!("{part}.")))
                && is_name(name)
                && !["rs", "md", "toml"].contains(&name)
                && !keys.contains(span.split(' ').next().unwrap())
            {
                writeln!(wrong, "{paper}: no key {span}").unwrap();
            }
        }
        for line in code_lines(&text) {
            let mut words = line.trim_start_matches("$ ").split_whitespace();
            let known = match (words.next(), words.next()) {
                (Some("make"), Some(target)) => targets.contains(target),
                (Some("uptally"), Some(command)) => commands.contains(command),
                _ => true,
            };
            if !known {
                writeln!(wrong, "{paper}: {line}").unwrap();
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
}

#[test]
fn the_readme_lists_the_commands() {
    let listed: BTreeSet<String> = rows(&section(&read("README.md"), "## Commands"))
        .iter()
        .map(|row| spans(&row[0]).remove(0).replace("uptally ", ""))
        .collect();
    let mut commands = commands();
    commands.remove("help");
    assert_eq!(listed, commands);
}

#[test]
fn every_word_of_the_glossary_has_its_type() {
    let sources = sources();
    let migration = migrations();
    let table = rows(&read("docs/glossary.md"));
    let words: Vec<String> = table.iter().map(|row| row[0].replace('`', "")).collect();
    assert!(words.is_sorted(), "in the order of the alphabet: {words:?}");
    let mut wrong = String::new();
    for row in &table {
        for name in spans(&row[2]) {
            let found = match name.rsplit_once("::") {
                None => mentions(&migration, &name),
                Some((path, item)) => {
                    let module = path.split("::").next().unwrap();
                    sources.iter().any(|(file, text)| {
                        module_of(file) == module && text.lines().any(|line| declares_publicly(line, item))
                    })
                }
            };
            if !found {
                writeln!(wrong, "{}: no {name}", row[0]).unwrap();
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
}

#[test]
fn a_source_file_fits_a_sitting() {
    let long: Vec<String> = sources()
        .into_iter()
        .filter_map(|(path, text)| {
            let lines = text.lines().count();
            (lines > LINES_MAX).then(|| format!("{path}: {lines} lines"))
        })
        .collect();
    assert!(long.is_empty(), "more than {LINES_MAX} lines: {long:#?}");
}

#[test]
fn the_zones_with_half_hour_cells_are_those_of_the_model() {
    let rule = section(&read("docs/model.md"), "### Half-hour cells");
    for tz in chrono_tz::TZ_VARIANTS {
        let halves = Zone::of(tz).grid().cells_per_hour() == 2;
        let named = rule.contains(tz.name());
        assert_eq!(halves, named, "{tz}");
    }
}

#[test]
fn the_worked_example_is_what_the_code_says() {
    let stores = example_stores();
    let as_of: Timestamp = "2023-01-23T18:03:00Z".parse().unwrap();
    let mut rollup = Rollup::new(Limits::default(), as_of);
    for store in &stores {
        let hours = store.hours.iter();
        let hours = hours.map(|row| Interval::new(row.day, row.start_us, row.end_us).unwrap());
        let closures = store.closures.iter();
        let closures = closures.map(|row| Closure::new(row.from_us, row.to_us).unwrap());
        let schedule = Schedule::new(store.zone, hours.collect()).with_closures(closures.collect());
        let number = rollup.enroll(&store.id, &schedule);
        let observed = store.observations.iter();
        let mut observed: Vec<_> = observed
            .map(|&(at, status)| (number, Observation { at, status }))
            .collect();
        assert_eq!(rollup.apply(&mut observed), []);
    }
    let snapshot = rollup.snapshot();
    let report = |windows, closed| {
        let report = String::from_utf8(csv::render(&snapshot, as_of, windows, closed).unwrap().to_vec()).unwrap();
        assert_eq!(report, oracle::report_csv(&stores, as_of, windows, closed));
        report
    };
    let model = read("docs/model.md");
    let shown: Vec<&str> = model.split("```csv\n").skip(1).collect();
    let shown: Vec<&str> = shown.iter().map(|rest| rest.split("```").next().unwrap()).collect();
    let calendar = report(Windows::Calendar, ClosedTime::Uptime);
    assert_eq!(shown[0], calendar);
    assert_eq!(shown[1], report(Windows::Rolling, ClosedTime::Excluded));
    assert!(read("README.md").contains(&calendar), "the README shows it too");
}

// ---- the sources ----------------------------------------------------------------------------------------------

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// All migrations, one after the other.
fn migrations() -> String {
    let files = fs::read_dir(root().join("migrations")).unwrap();
    files
        .map(|file| fs::read_to_string(file.unwrap().path()).unwrap())
        .collect()
}

fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// Paths below the root, with their texts.
fn files(dir: &str, extension: &str) -> Vec<(String, String)> {
    let mut found = Vec::new();
    let mut dirs = vec![PathBuf::from(dir)];
    while let Some(dir) = dirs.pop() {
        for entry in fs::read_dir(root().join(&dir)).unwrap() {
            let path = dir.join(entry.unwrap().file_name());
            if root().join(&path).is_dir() {
                dirs.push(path);
            } else if path.extension().is_some_and(|e| e == extension) {
                let path = path.to_str().unwrap().to_owned();
                found.push((path.clone(), read(&path)));
            }
        }
    }
    found.sort();
    found
}

fn sources() -> Vec<(String, String)> {
    files("src", "rs")
}

/// `src/rollup/book.rs` is of module `rollup`.
fn module_of(path: &str) -> String {
    let inside = path.strip_prefix("src/").unwrap();
    let first = inside.split('/').next().unwrap();
    first.trim_end_matches(".rs").to_owned()
}

/// Without comments.
fn code_of(text: &str) -> String {
    let code = text.lines().map(|line| line.split("//").next().unwrap_or_default());
    code.collect::<Vec<_>>().join("\n")
}

/// Modules of this crate that are named by `crate::module` or `crate::{module, ...}`.
fn used_modules(text: &str) -> BTreeSet<String> {
    let code = code_of(text);
    let mut used = BTreeSet::new();
    for rest in code.split("crate::").skip(1) {
        if let Some(group) = rest.strip_prefix('{') {
            let mut depth = 1;
            let inside = group.chars().take_while(|&c| {
                depth += i32::from(c == '{') - i32::from(c == '}');
                depth > 0
            });
            let mut top = String::new();
            let mut nested = 0;
            for c in inside {
                nested += i32::from(c == '{') - i32::from(c == '}');
                if nested == 0 {
                    top.push(c);
                }
            }
            used.extend(top.split(',').map(|part| identifier(part.trim())));
        } else {
            used.insert(identifier(rest));
        }
    }
    used.remove("");
    used
}

fn identifier(text: &str) -> String {
    text.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect()
}

fn is_name(text: &str) -> bool {
    text.chars()
        .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_')
}

fn mentions(code: &str, name: &str) -> bool {
    let part_of_a_word = |c: Option<char>| c.is_some_and(|c| c.is_alphanumeric() || c == '_');
    code.match_indices(name).any(|(at, _)| {
        let before = code[..at].chars().next_back();
        let after = code[at + name.len()..].chars().next();
        !part_of_a_word(before) && !part_of_a_word(after)
    })
}

/// Whether a file defines an item, a variant, a table, a view, a function or a constraint of this name.
fn defines(text: &str, name: &str) -> bool {
    const BEFORE: [&str; 11] = [
        "fn",
        "struct",
        "enum",
        "const",
        "type",
        "trait",
        "TABLE",
        "VIEW",
        "FUNCTION",
        "CONSTRAINT",
        "TRIGGER",
    ];
    let words: Vec<&str> = text
        .split(|c: char| !(c.is_alphanumeric() || c == '_' || c == '.'))
        .filter(|word| !word.is_empty())
        .collect();
    words
        .windows(2)
        .any(|pair| BEFORE.contains(&pair[0]) && pair[1].rsplit('.').next() == Some(name))
}

fn declares_publicly(line: &str, name: &str) -> bool {
    let mut words = line.trim_start().split(|c: char| !(c.is_alphanumeric() || c == '_'));
    words.next() == Some("pub")
        && matches!(
            words.next(),
            Some("struct" | "enum" | "trait" | "const" | "type" | "fn")
        )
        && words.next() == Some(name)
}

// ---- the papers -----------------------------------------------------------------------------------------------

fn papers() -> Vec<(String, String)> {
    let mut papers = files("docs", "md");
    for paper in ["README.md", "ARCHITECTURE.md"] {
        papers.push((paper.to_owned(), read(paper)));
    }
    papers
}

/// From a heading to the next one of its level or above.
fn section(text: &str, heading: &str) -> String {
    let level = heading.split(' ').next().unwrap().len();
    let mut lines = text.lines().skip_while(|line| *line != heading);
    let first = lines.next().unwrap_or_else(|| panic!("no {heading}"));
    let ends = |line: &&str| {
        let hashes = line.chars().take_while(|&c| c == '#').count();
        !(1..=level).contains(&hashes)
    };
    [first]
        .into_iter()
        .chain(lines.take_while(ends))
        .collect::<Vec<_>>()
        .join("\n")
}

/// The rows of a text's table, without its head.
fn rows(text: &str) -> Vec<Vec<String>> {
    let table = text.lines().filter(|line| line.starts_with('|')).skip(2);
    table
        .map(|line| {
            line.trim_matches('|')
                .split('|')
                .map(|cell| cell.trim().to_owned())
                .collect()
        })
        .collect()
}

/// Lines in fenced blocks.
fn code_lines(text: &str) -> Vec<&str> {
    text.split("```").skip(1).step_by(2).flat_map(str::lines).collect()
}

/// Texts between backticks, outside fenced blocks.
fn spans(text: &str) -> Vec<String> {
    let prose: String = text.split("```").step_by(2).collect();
    prose.split('`').skip(1).step_by(2).map(str::to_owned).collect()
}

/// Targets of links to files of ours.
fn links(text: &str) -> Vec<String> {
    let targets = text.split("](").skip(1).filter_map(|rest| rest.split(')').next());
    targets
        .filter(|target| !target.contains("://"))
        .map(str::to_owned)
        .collect()
}

/// What the headings of a paper are linked by.
fn anchors(text: &str) -> BTreeSet<String> {
    let headings = text.lines().filter(|line| line.starts_with('#'));
    headings
        .map(|line| {
            let title = line.trim_start_matches('#').trim().to_lowercase().replace(' ', "-");
            title.chars().filter(|c| c.is_alphanumeric() || *c == '-').collect()
        })
        .collect()
}

// ---- what the papers speak of ---------------------------------------------------------------------------------

fn make_targets() -> BTreeSet<String> {
    let makefile = read("Makefile");
    let target = |line: &str| {
        let (name, _) = line.split_once(':')?;
        (!name.is_empty() && !name.contains([' ', '\t', '.', '='])).then(|| name.to_owned())
    };
    makefile.lines().filter_map(target).collect()
}

/// The commands that `uptally --help` lists.
fn commands() -> BTreeSet<String> {
    let help = Command::new(env!("CARGO_BIN_EXE_uptally"))
        .arg("--help")
        .output()
        .unwrap();
    let help = String::from_utf8(help.stdout).unwrap();
    let listed = help.lines().skip_while(|line| *line != "Commands:").skip(1);
    listed
        .take_while(|line| !line.is_empty())
        .filter_map(|line| line.split_whitespace().next())
        .map(str::to_owned)
        .collect()
}

fn config_keys() -> BTreeSet<String> {
    let mut part = String::new();
    let mut keys = BTreeSet::new();
    for line in read("config/uptally.toml").lines() {
        if let Some(name) = line.strip_prefix('[').and_then(|line| line.strip_suffix(']')) {
            name.clone_into(&mut part);
        } else if let Some((key, _)) = line.strip_prefix('#').and_then(|line| line.split_once(" = "))
            && is_name(key)
        {
            keys.insert(format!("{part}.{key}"));
        }
    }
    keys
}

/// The stores of docs/example, with their rows.
fn example_stores() -> Vec<RawStore> {
    let mut stores: BTreeMap<String, RawStore> = BTreeMap::new();
    let mut each = |file: &str, take: &dyn Fn(&mut RawStore, &[String])| {
        for line in read(&format!("docs/example/{file}")).lines().skip(1) {
            let row: Vec<String> = line.split(',').map(str::to_owned).collect();
            let store = stores.entry(row[0].clone()).or_insert_with(|| RawStore {
                id: row[0].clone(),
                zone: DEFAULT_ZONE,
                hours: Vec::new(),
                closures: Vec::new(),
                observations: Vec::new(),
            });
            take(store, &row);
        }
    };
    each("timezones.csv", &|store, row| store.zone = row[1].parse().unwrap());
    each("hours.csv", &|store, row| {
        let wall_us = |text: &str| {
            let mut parts = text.split(':').map(|part| part.parse::<i64>().unwrap());
            let mut next = |unit_us| parts.next().unwrap() * unit_us;
            next(HOUR_US) + next(MINUTE_US) + next(SECOND_US)
        };
        store.hours.push(RawInterval {
            day: row[1].parse().unwrap(),
            start_us: wall_us(&row[2]),
            end_us: wall_us(&row[3]),
        });
    });
    each("closures.csv", &|store, row| {
        let wall_us = |text: &str| format!("{text}:00Z").parse::<Timestamp>().unwrap().micros();
        store.closures.push(RawClosure {
            from_us: wall_us(&row[1]),
            to_us: wall_us(&row[2]),
        });
    });
    each("status.csv", &|store, row| {
        store
            .observations
            .push((row[2].parse().unwrap(), row[1].parse().unwrap()));
    });
    stores.into_values().collect()
}
