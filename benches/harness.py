"""What the measuring scripts beside this file share: scratch room, a Postgres of its own, the daemon, HTTP.

Standard library only. Everything that is started here is stopped and everything that is written here is removed when
`Scratch` is left: at the end, on an error, on Ctrl-C and on SIGTERM. Times are seconds, sizes bytes, unless a name
says otherwise.
"""

import glob
import http.client
import json
import os
import platform
import pwd
import re
import shlex
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
TARGET = os.path.join(ROOT, "target")
UPTALLY = os.path.join(TARGET, "release", "uptally")

# As the private Postgres of `uptally serve` has them (src/cluster/plan.rs).
POSTGRES_SETTINGS = {
    "shared_buffers": "256MB",
    "max_wal_size": "2GB",
    "checkpoint_timeout": "10min",
    "jit": "off",
    "timezone": "UTC",
    "log_min_messages": "warning",
    "listen_addresses": "",
}

# Between two reports.
PAUSE_S = 0.05


class Failure(Exception):
    """What ends a script with one line."""


def run_script(main):
    """Runs `main`; errors that have a cause the user can do something about are one line."""

    def terminated(number, _frame):
        raise SystemExit(128 + number)

    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) != signal.SIG_IGN:  # as nohup leaves it
            signal.signal(number, terminated)
    try:
        main()
    except Failure as failure:
        sys.exit(f"{os.path.basename(sys.argv[0])}: {failure}")
    except KeyboardInterrupt:
        sys.exit("interrupted")


def environment():
    """Our environment without what would steer uptally or libpq elsewhere."""
    steering = ("PG", "UPTALLY", "DATABASE_URL")
    return {name: value for name, value in os.environ.items() if not name.startswith(steering)}


def say(text):
    print(text, file=sys.stderr, flush=True)


# ---- where -----------------------------------------------------------------------------------------------------


class Scratch:
    """A directory under target/, and what has to be ended before it goes."""

    def __init__(self, name):
        os.makedirs(TARGET, exist_ok=True)
        self.dir = tempfile.mkdtemp(prefix=f"{name}-", dir=TARGET if _others_may_enter(TARGET) else None)
        os.chmod(self.dir, 0o711)  # Postgres may run as another user
        self._ends = []

    def __enter__(self):
        return self

    def at_end(self, end):
        """Calls `end` before the directory goes; the last one first."""
        self._ends.append(end)

    def path(self, *parts):
        return os.path.join(self.dir, *parts)

    def __exit__(self, *_):
        # A second Ctrl-C must not leave a server behind.
        previous = signal.signal(signal.SIGINT, signal.SIG_IGN)
        for end in reversed(self._ends):
            try:
                end()
            except Exception as error:  # the others still have to be ended
                say(f"while ending: {error}")
        shutil.rmtree(self.dir, ignore_errors=True)
        signal.signal(signal.SIGINT, previous)


def _others_may_enter(path):
    if os.geteuid() != 0:
        return True
    parts = path.split(os.sep)
    parents = [os.sep.join(parts[:n]) or os.sep for n in range(1, len(parts) + 1)]
    return all(os.stat(parent).st_mode & 0o001 for parent in parents)


# ---- Postgres --------------------------------------------------------------------------------------------------


def postgres_bindir():
    """The newest server that scripts/ensure-postgres would accept, from the places where it looks."""
    places = [os.environ["UPTALLY_POSTGRES_BINDIR"]] if "UPTALLY_POSTGRES_BINDIR" in os.environ else []
    if not places:
        places = sorted(glob.glob("/usr/lib/postgresql/*/bin"), key=_version_in_path, reverse=True)
        if shutil.which("pg_config"):
            places.append(subprocess.run(["pg_config", "--bindir"], capture_output=True, text=True).stdout.strip())
        if shutil.which("postgres"):
            places.append(os.path.dirname(shutil.which("postgres")))
        for prefix in ("/opt/homebrew", "/usr/local"):
            places += sorted(glob.glob(f"{prefix}/opt/postgresql@*/bin"), key=_version_in_path, reverse=True)
    for place in places:
        if all(os.access(os.path.join(place, name), os.X_OK) for name in ("postgres", "initdb", "psql")):
            return place
    raise Failure("Postgres 14 or later is missing: run scripts/ensure-postgres")


def _version_in_path(path):
    return [int(number) for number in re.findall(r"\d+", path)]


class Postgres:
    """A cluster in the scratch room with the settings of the private one, fsync on, on a unix socket only."""

    def __init__(self, scratch):
        self.bindir = postgres_bindir()
        self._data = scratch.path("postgres")
        # The path of a socket may be 107 bytes long, that of the scratch room may be longer.
        self.host = tempfile.mkdtemp(prefix="uptally-", dir="/tmp")
        scratch.at_end(lambda: shutil.rmtree(self.host, ignore_errors=True))
        os.mkdir(self._data, 0o700)
        self._as = {}
        if os.geteuid() == 0:  # which Postgres refuses
            account = _account()
            for path in (self.host, self._data):
                os.chown(path, account.pw_uid, account.pw_gid)
            self._as = {"user": account.pw_uid, "group": account.pw_gid, "extra_groups": []}
        initdb = ["initdb", "-D", self._data, "-U", "uptally", "--auth=trust", "-E", "UTF8", "--locale=C"]
        self._call(initdb + ["--data-checksums"])
        self._log = open(scratch.path("postgres.log"), "wb")
        settings = POSTGRES_SETTINGS | {"unix_socket_directories": self.host}
        self._server = subprocess.Popen(
            [self._binary("postgres"), "-D", self._data, *[f"--{name}={value}" for name, value in settings.items()]],
            stdout=self._log,
            stderr=self._log,
            cwd="/",
            env=environment(),
            start_new_session=True,  # Ctrl-C is for the script, which then ends the server
            **self._as,
        )
        scratch.at_end(self.stop)
        deadline = time.monotonic() + 60
        while subprocess.run(
            [self._binary("psql"), "-Xqc", "", self.dsn("postgres")], env=environment(), capture_output=True
        ).returncode:
            if self._server.poll() is not None or time.monotonic() > deadline:
                raise Failure(f"Postgres does not start: {open(self._log.name).read().strip()[-500:]}")
            time.sleep(0.05)
        self.version = self.sql("SHOW server_version", "postgres").split()[0]

    def _binary(self, name):
        return os.path.join(self.bindir, name)

    def _call(self, command):
        command = [self._binary(command[0]), *command[1:]]
        done = subprocess.run(command, capture_output=True, text=True, cwd="/", env=environment(), **self._as)
        if done.returncode:
            raise Failure(f"{' '.join(command)}: {done.stderr.strip()}")

    def dsn(self, database="uptally"):
        return f"host={self.host} port=5432 user=uptally dbname={database}"

    def create(self, database):
        self.sql(f"CREATE DATABASE {database}", "postgres")

    def sql(self, *statements_then_database, stdin=None, stdout=None):
        """Runs statements, one transaction each, by psql; the last argument is the database. Returns the output."""
        *statements, database = statements_then_database
        command = [self._binary("psql"), "-XqAt", "-v", "ON_ERROR_STOP=1", self.dsn(database)]
        for statement in statements:
            command += ["-c", statement]
        done = subprocess.run(
            command, stdin=stdin, stdout=stdout or subprocess.PIPE, stderr=subprocess.PIPE, env=environment()
        )
        if done.returncode:
            raise Failure(f"{statements}: {done.stderr.decode().strip()}")
        return done.stdout.decode().strip() if stdout is None else ""

    def stop(self):
        if self._server.poll() is None:
            self._server.send_signal(signal.SIGINT)  # fast shutdown
            try:
                self._server.wait(60)
            except subprocess.TimeoutExpired:
                self._server.send_signal(signal.SIGQUIT)
                self._server.wait()
        self._log.close()


def _account():
    for name in ("postgres", "nobody"):
        try:
            return pwd.getpwnam(name)
        except KeyError:
            continue
    raise Failure("neither of the users postgres and nobody is there to run Postgres as")


# ---- uptally ---------------------------------------------------------------------------------------------------


def uptally(*arguments, dsn=None, cwd=None):
    """Runs a command of uptally that must succeed; returns its output."""
    if not os.access(UPTALLY, os.X_OK):
        raise Failure(f"{UPTALLY} is missing: cargo build --release")
    env = environment() | ({"DATABASE_URL": dsn} if dsn else {})
    done = subprocess.run([UPTALLY, *arguments], capture_output=True, text=True, env=env, cwd=cwd)
    if done.returncode:
        raise Failure(f"uptally {' '.join(arguments)}: {done.stderr.strip()}")
    return done.stdout


class Daemon:
    """A running `uptally serve`. `ready_s` is the time from the start of the process to `/readyz` 200."""

    def __init__(self, scratch, dsn, patience_s=3600):
        self._log_path = scratch.path("serve.log")
        with open(self._log_path, "wb") as log:
            began = time.perf_counter()
            self._process = subprocess.Popen(
                [UPTALLY, "serve", "--listen", "127.0.0.1:0"],
                stdout=log,
                stderr=log,
                cwd=scratch.dir,
                start_new_session=True,
                env=environment() | {"DATABASE_URL": dsn, "UPTALLY__REPORT__OUTPUT_URL": scratch.path("csvs")},
            )
        scratch.at_end(self.stop)
        deadline = time.monotonic() + patience_s
        address = None
        while address is None:
            self._check(deadline)
            address = re.search(rb"listening on http://([0-9.]+):(\d+)", open(self._log_path, "rb").read())
            time.sleep(0.001)
        self.http = Http(address[1].decode(), int(address[2]))
        while self.http.get("/readyz")[0] != 200:
            self._check(deadline)
            # One part in a hundred of what it took so far: answering often would take from what is measured.
            time.sleep(max(0.001, (time.perf_counter() - began) / 100))
        self.ready_s = time.perf_counter() - began

    def _check(self, deadline):
        if self._process.poll() is not None or time.monotonic() > deadline:
            last = open(self._log_path).read().strip().splitlines()[-1:]
            raise Failure(f"uptally serve is not ready: {last}")

    def figure(self, name):
        """A figure of /metrics; 0 if it is not there yet."""
        for line in self.http.get("/metrics")[1].decode().splitlines():
            if line.startswith(f"{name} "):
                return float(line.split()[1])
        return 0.0

    def wait_for(self, name, least, patience_s=3600):
        deadline = time.monotonic() + patience_s
        while self.figure(name) < least:
            self._check(deadline)
            time.sleep(0.02)

    def memory(self):
        """Resident bytes now, and the most there were (None where the system does not tell)."""
        try:
            status = open(f"/proc/{self._process.pid}/status").read()
        except FileNotFoundError:
            ps = subprocess.run(["ps", "-o", "rss=", "-p", str(self._process.pid)], capture_output=True, text=True)
            return int(ps.stdout) * 1024, None
        of = lambda name: int(re.search(rf"{name}:\s+(\d+) kB", status)[1]) * 1024
        return of("VmRSS"), of("VmHWM")

    def cpu_s(self):
        """Processor seconds of the process so far; None where the system does not tell."""
        try:
            fields = open(f"/proc/{self._process.pid}/stat").read().rsplit(")", 1)[1].split()
        except FileNotFoundError:
            return None
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def report(self, query):
        """Triggers a report and asks until it is complete: seconds, and the CSV.

        After a pause, as reports are not asked for back to back: the end of the one before is on its way to the disk
        still when its CSV has been read.
        """
        time.sleep(PAUSE_S)
        self.http.get("/healthz")  # connects anew if the server closed an idle connection
        began = time.perf_counter()
        status, body, location = self.http.request("POST", f"/trigger_report?{query}")
        if status != 202:
            raise Failure(f"POST /trigger_report?{query}: {status} {body.decode()}")
        while True:
            status, body, _ = self.http.request("GET", location)
            if status == 200:
                return time.perf_counter() - began, body
            if status != 202:
                raise Failure(f"GET {location}: {status} {body.decode()}")
            time.sleep(0.0002)

    def stop(self, kill=False):
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGKILL if kill else signal.SIGTERM)
            try:
                self._process.wait(60)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()


class Http:
    """One persistent connection without Nagle's delay."""

    def __init__(self, host, port):
        self._address = (host, port)
        self._connection = None

    def request(self, method, path):
        """Status, body, Location."""
        if self._connection is None:
            self._connection = http.client.HTTPConnection(*self._address, timeout=120)
            self._connection.connect()
            self._connection.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._connection.request(method, path)
        answer = self._connection.getresponse()
        return answer.status, answer.read(), answer.getheader("location")

    def get(self, path):
        """Status and body; once more on a new connection if the server has closed this one."""
        try:
            return self.request("GET", path)[:2]
        except (http.client.HTTPException, OSError):
            self._connection = None
            return self.request("GET", path)[:2]


# ---- what is printed -------------------------------------------------------------------------------------------


def machine(postgres_version, target, variable):
    """Where and of what a measurement is. The command is that of make: its target, and the variable for arguments."""
    git = lambda *arguments: subprocess.run(["git", "-C", ROOT, *arguments], capture_output=True, text=True).stdout
    commit = git("rev-parse", "--short", "HEAD").strip() or "unknown"
    return {
        "cpu": _cpu(),
        "cores": os.cpu_count(),
        "ram_gb": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9),
        "system": f"{platform.system()} {platform.release()}",
        "postgres": postgres_version,
        "date": time.strftime("%Y-%m-%d"),
        "commit": commit + ("+changes" if git("status", "--porcelain", "--untracked-files=no").strip() else ""),
        "load_before": round(os.getloadavg()[0], 1),
        "command": f"make {target}" + (f' {variable}="{shlex.join(sys.argv[1:])}"' if sys.argv[1:] else ""),
    }


def _cpu():
    try:
        return re.search(r"model name\s*: (.*)", open("/proc/cpuinfo").read())[1]
    except (OSError, TypeError):
        return platform.processor() or platform.machine()


def machine_line(m):
    return (
        f"{m['cpu']}, {m['cores']} cores, {m['ram_gb']} GB; {m['system']}; PostgreSQL {m['postgres']}, fsync on; "
        f"{m['date']}, commit {m['commit']}, load before {m['load_before']}; `{m['command']}`"
    )


def table(head, rows):
    """A Markdown table; every column but the first is aligned right."""
    lines = [head, ["---"] + ["---:"] * (len(head) - 1), *rows]
    return "\n".join("| " + " | ".join(str(cell) for cell in line) + " |" for line in lines)


def quantile(values, q):
    """The value below which a share `q` lies, of those that were measured."""
    ordered = sorted(values)
    return ordered[min(int(q * len(ordered)), len(ordered) - 1)]


def median_and_range(values, scale=1.0, digits=2):
    """`12.3 (11.0 to 14.2)`; of one value only that."""
    low, middle, high = (f"{scale * pick(values):.{digits}f}" for pick in (min, statistics.median, max))
    return middle if len(values) == 1 else f"{middle} ({low} to {high})"


def write_json(path, value):
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "w") as file:
        json.dump(value, file, indent=2)
        file.write("\n")
