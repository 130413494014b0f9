//! A bus of our own, and a systemd on it that only says what it would do.
#![allow(
    clippy::needless_pass_by_value,
    reason = "a method of D-Bus owns its arguments"
)]

use std::{
    io::{BufRead as _, BufReader},
    path::Path,
    process::{Child, Command, Stdio},
    sync::{
        Arc, Mutex,
        atomic::{AtomicU32, Ordering},
    },
};

use tokio::{net::UnixStream, sync::Notify};
use zbus::{
    Connection, DBusError, ObjectPath, OwnedObjectPath, connection, interface, message::Header,
    object_server::SignalEmitter,
};

const MANAGER_PATH: &str = "/org/freedesktop/systemd1";
const NAME: &str = "org.freedesktop.systemd1";

/// More than zbus holds for one who does not take them.
const OTHER_JOBS: u32 = 300;

/// A daemon, which ends with this.
pub(crate) struct Bus(Child);

/// What the made-up systemd was asked, and what it waits for.
#[derive(Clone, Default)]
pub(crate) struct Asked {
    calls: Arc<Mutex<Vec<String>>>,
    /// Ends the job of slow.service.
    pub(crate) release: Arc<Notify>,
    /// Told when that job has begun.
    pub(crate) begun: Arc<Notify>,
}

/// The made-up systemd. Dropped, it leaves the bus.
pub(crate) struct Systemd {
    pub(crate) asked: Asked,
    _connection: Connection,
}

impl Bus {
    pub(crate) fn start(dir: &Path) -> Self {
        let socket = dir.join("bus");
        let _ = std::fs::remove_file(&socket);
        let config = dir.join("bus.conf");
        let text = format!(
            r#"<busconfig><type>session</type><listen>unix:path={}</listen><auth>EXTERNAL</auth>
               <policy context="default"><allow send_destination="*" eavesdrop="true"/><allow eavesdrop="true"/><allow own="*"/></policy></busconfig>"#,
            socket.display()
        );
        std::fs::write(&config, text).unwrap();
        let mut child = Command::new("dbus-daemon")
            .arg(format!("--config-file={}", config.display()))
            .args(["--nofork", "--nopidfile", "--print-address=1"])
            .stdout(Stdio::piped())
            .spawn()
            .expect("dbus-daemon is needed: apt-get install dbus-daemon");
        let mut line = String::new();
        // It says where it listens once it does.
        BufReader::new(child.stdout.take().unwrap())
            .read_line(&mut line)
            .unwrap();
        assert!(line.contains("unix:path="), "{line:?}");
        Self(child)
    }
}

impl Drop for Bus {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Systemd {
    pub(crate) async fn start(dir: &Path) -> Self {
        let asked = Asked::default();
        let manager = Manager {
            asked: asked.clone(),
            jobs: AtomicU32::new(0),
            liar: connect(dir).await.build().await.unwrap(),
        };
        let connection = connect(dir).await.serve_at(MANAGER_PATH, manager);
        let connection = connection
            .serve_at(unit_path("nginx.service"), Unit { loaded: true })
            .serve_at(unit_path("nginx.service"), Service)
            .serve_at(unit_path("none.service"), Unit { loaded: false })
            .serve_at(unit_path("none.service"), Service)
            .name(NAME)
            .build()
            .await
            .unwrap();
        Self {
            asked,
            _connection: connection,
        }
    }
}

async fn connect(dir: &Path) -> connection::Builder<'static> {
    let stream = UnixStream::connect(dir.join("bus")).await.unwrap();
    connection::Builder::unix_stream(stream.into_std().unwrap())
}

fn unit_path(name: &str) -> String {
    format!("{MANAGER_PATH}/unit/{}", name.replace('.', "_2e"))
}

impl Asked {
    pub(crate) fn take(&self) -> Vec<String> {
        std::mem::take(&mut self.calls.lock().unwrap())
    }

    fn note(&self, call: String) {
        self.calls.lock().unwrap().push(call);
    }
}

type Listed = (
    String,
    String,
    String,
    String,
    String,
    String,
    OwnedObjectPath,
    u32,
    String,
    OwnedObjectPath,
);

type Changes = Vec<(String, String, String)>;

#[derive(Debug, DBusError)]
#[zbus(prefix = "org.freedesktop")]
enum Refusal {
    #[zbus(error)]
    ZBus(zbus::Error),
    #[zbus(name = "systemd1.NoSuchUnit")]
    NoSuchUnit(String),
    #[zbus(name = "DBus.Error.AccessDenied")]
    AccessDenied(String),
    #[zbus(name = "DBus.Error.FileNotFound")]
    FileNotFound(String),
}

struct Manager {
    asked: Asked,
    jobs: AtomicU32,
    /// Somebody else on the bus, who says what is not true.
    liar: Connection,
}

impl Manager {
    async fn job(
        &self,
        verb: &str,
        unit: String,
        mode: &str,
        header: &Header<'_>,
        emitter: SignalEmitter<'_>,
    ) -> Result<OwnedObjectPath, Refusal> {
        self.asked.note(format!("{verb} {unit} {mode}"));
        match unit.as_str() {
            "none.service" => {
                return Err(Refusal::NoSuchUnit("Unit none.service not found.".into()));
            }
            "secret.service" => return Err(Refusal::AccessDenied("Access denied".into())),
            _ => {}
        }
        let id = self.jobs.fetch_add(1, Ordering::Relaxed);
        let job = job_path(id);
        let asked = self.asked.clone();
        match unit.as_str() {
            // Its job is over before its name is known, as are those of others.
            "busy.service" => {
                Self::job_removed(&emitter, id, job.as_ref(), &unit, "done").await?;
            }
            "noisy.service" => {
                for id in 1000..1000 + OTHER_JOBS {
                    let job = job_path(id);
                    Self::job_removed(&emitter, id, job.as_ref(), "other.service", "failed")
                        .await?;
                }
                Self::job_removed(&emitter, id, job.as_ref(), &unit, "done").await?;
            }
            "slow.service" => {
                let (emitter, job) = (emitter.to_owned(), job.clone());
                tokio::spawn(async move {
                    asked.begun.notify_one();
                    asked.release.notified().await;
                    let _ = Self::job_removed(&emitter, id, job.as_ref(), &unit, "done").await;
                });
            }
            "forged.service" => {
                let caller = header.sender().unwrap().to_string();
                let body = (id, job.clone(), unit.clone(), "done");
                self.liar
                    .emit_signal(
                        Some(caller.as_str()),
                        MANAGER_PATH,
                        "org.freedesktop.systemd1.Manager",
                        "JobRemoved",
                        &body,
                    )
                    .await?;
                Self::job_removed(&emitter, id, job.as_ref(), &unit, "failed").await?;
            }
            "broken.service" => {
                Self::job_removed(&emitter, id, job.as_ref(), &unit, "timeout").await?;
            }
            _ => {
                Self::job_removed(&emitter, id, job.as_ref(), &unit, "done").await?;
            }
        }
        Ok(job)
    }

    fn file(&self, verb: &str, files: &[String]) -> Result<(), Refusal> {
        let name = files.join(" ");
        self.asked.note(format!("{verb} {name}"));
        match name.as_str() {
            "none.service" => Err(Refusal::FileNotFound("No such file or directory".into())),
            _ => Ok(()),
        }
    }
}

fn job_path(id: u32) -> OwnedObjectPath {
    let path = format!("{MANAGER_PATH}/job/{id}");
    ObjectPath::try_from(path).unwrap().into()
}

#[interface(name = "org.freedesktop.systemd1.Manager")]
impl Manager {
    fn subscribe(&self) {}

    fn reload(&self) {
        self.asked.note("Reload".to_owned());
    }

    fn load_unit(&self, name: String) -> OwnedObjectPath {
        let known = match name.as_str() {
            "nginx.service" => "nginx.service",
            _ => "none.service",
        };
        ObjectPath::try_from(unit_path(known)).unwrap().into()
    }

    fn list_units_by_patterns(&self, states: Vec<String>, patterns: Vec<String>) -> Vec<Listed> {
        let words = [states.join(","), patterns.join(",")].join(" ");
        self.asked.note(format!("ListUnitsByPatterns {words}"));
        let unit = |name: &str, active: &str| {
            let root = || ObjectPath::try_from("/").unwrap().into();
            let text = str::to_owned;
            (
                text(name),
                "d".repeat(1000),
                text("loaded"),
                text(active),
                text("running"),
                text(""),
                root(),
                0,
                text(""),
                root(),
            )
        };
        if patterns == ["many*"] {
            let name = |i| format!("many{i:05}.service");
            return (0..5000).map(|i| unit(&name(i), "active")).collect();
        }
        vec![unit("nginx.service", "active"), unit("a.service", "failed")]
    }

    fn list_unit_files_by_patterns(
        &self,
        _states: Vec<String>,
        _patterns: Vec<String>,
    ) -> Vec<(String, String)> {
        [
            ("/usr/lib/systemd/system/nginx.service", "enabled"),
            ("/usr/lib/systemd/system/off.service", "disabled"),
        ]
        .map(|(path, state)| (path.to_owned(), state.to_owned()))
        .to_vec()
    }

    async fn start_unit(
        &self,
        name: String,
        mode: String,
        #[zbus(header)] header: Header<'_>,
        #[zbus(signal_emitter)] emitter: SignalEmitter<'_>,
    ) -> Result<OwnedObjectPath, Refusal> {
        self.job("StartUnit", name, &mode, &header, emitter).await
    }

    async fn stop_unit(
        &self,
        name: String,
        mode: String,
        #[zbus(header)] header: Header<'_>,
        #[zbus(signal_emitter)] emitter: SignalEmitter<'_>,
    ) -> Result<OwnedObjectPath, Refusal> {
        self.job("StopUnit", name, &mode, &header, emitter).await
    }

    async fn restart_unit(
        &self,
        name: String,
        mode: String,
        #[zbus(header)] header: Header<'_>,
        #[zbus(signal_emitter)] emitter: SignalEmitter<'_>,
    ) -> Result<OwnedObjectPath, Refusal> {
        self.job("RestartUnit", name, &mode, &header, emitter).await
    }

    fn enable_unit_files(
        &self,
        files: Vec<String>,
        runtime: bool,
        force: bool,
    ) -> Result<(bool, Changes), Refusal> {
        assert!(!runtime && !force);
        self.file("EnableUnitFiles", &files)?;
        let has_install = files != ["static.service"];
        Ok((has_install, Vec::new()))
    }

    fn get_unit_file_state(&self, file: String) -> Result<String, Refusal> {
        self.file("GetUnitFileState", &[file])?;
        Ok("enabled".to_owned())
    }

    fn disable_unit_files(&self, files: Vec<String>, runtime: bool) -> Result<Changes, Refusal> {
        assert!(!runtime);
        self.file("DisableUnitFiles", &files)?;
        Ok(Vec::new())
    }

    fn mask_unit_files(
        &self,
        files: Vec<String>,
        runtime: bool,
        force: bool,
    ) -> Result<Changes, Refusal> {
        assert!(!runtime && !force);
        self.file("MaskUnitFiles", &files)?;
        Ok(Vec::new())
    }

    fn reset_failed_unit(&self, name: String) -> Result<(), Refusal> {
        self.file("ResetFailedUnit", &[name])
    }

    #[zbus(signal)]
    async fn job_removed(
        emitter: &SignalEmitter<'_>,
        id: u32,
        job: ObjectPath<'_>,
        unit: &str,
        result: &str,
    ) -> zbus::Result<()>;
}

struct Unit {
    loaded: bool,
}

#[interface(name = "org.freedesktop.systemd1.Unit")]
impl Unit {
    #[zbus(property)]
    fn id(&self) -> String {
        match self.loaded {
            true => "nginx.service".to_owned(),
            false => "none.service".to_owned(),
        }
    }

    #[zbus(property)]
    fn description(&self) -> String {
        "A web server".to_owned()
    }

    #[zbus(property)]
    fn load_state(&self) -> String {
        match self.loaded {
            true => "loaded".to_owned(),
            false => "not-found".to_owned(),
        }
    }

    #[zbus(property)]
    fn active_state(&self) -> String {
        match self.loaded {
            true => "active".to_owned(),
            false => "inactive".to_owned(),
        }
    }

    #[zbus(property)]
    fn sub_state(&self) -> String {
        "running".to_owned()
    }

    #[zbus(property)]
    fn unit_file_state(&self) -> String {
        "enabled".to_owned()
    }

    #[zbus(property)]
    fn fragment_path(&self) -> String {
        "/usr/lib/systemd/system/nginx.service".to_owned()
    }

    #[zbus(property)]
    fn active_enter_timestamp(&self) -> u64 {
        1_700_000_000_000_000
    }
}

struct Service;

#[interface(name = "org.freedesktop.systemd1.Service")]
impl Service {
    #[zbus(property, name = "MainPID")]
    fn main_pid(&self) -> u32 {
        4711
    }

    #[zbus(property)]
    fn memory_current(&self) -> u64 {
        1 << 20
    }

    #[zbus(property)]
    fn tasks_current(&self) -> u64 {
        u64::MAX
    }

    #[zbus(property, name = "NRestarts")]
    fn restarts(&self) -> u32 {
        2
    }

    #[zbus(property)]
    fn result(&self) -> String {
        "success".to_owned()
    }
}
