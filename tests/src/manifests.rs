//! What the chart renders to, by real Helm, and whether Kubernetes takes it, by its own schemas: a Python program asks
//! both (`tests/services/manifests.py`), as there they come as libraries.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::{Value, json};

/// The API versions that rendered objects are checked against.
pub const VERSIONS: [&str; 3] = ["1.29", "1.33", "1.36"];

/// The chart.
#[must_use]
pub fn chart() -> PathBuf {
    crate::workspace().join("deploy/helm/tokenscope")
}

/// The Python that has both libraries.
///
/// # Errors
/// When there is none.
pub fn python() -> Result<PathBuf> {
    let tools = std::env::var_os("TOKENSCOPE_TEST_TOOLS");
    let tools = tools.map_or_else(|| crate::workspace().join("target/tools"), PathBuf::from);
    let python = tools.join("python/bin/python3");
    ensure!(
        python.exists(),
        "Helm is missing: `cargo xtask test` installs it into {} (needs python3-venv)",
        python.display()
    );
    Ok(python)
}

/// Asks a list of questions, in one go, as the libraries take their time to load.
///
/// # Errors
/// When there is no such Python, or it fails.
pub fn ask(questions: &[Value]) -> Result<Vec<Value>> {
    ask_by(Command::new(python()?), questions)
}

/// The same, by a command that runs that Python.
///
/// # Errors
/// When it fails.
pub fn ask_by(mut python: Command, questions: &[Value]) -> Result<Vec<Value>> {
    let mut child = python
        .arg(crate::service("manifests.py"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .context("start python")?;
    let text = Value::from(questions).to_string();
    let mut stdin = child.stdin.take().context("stdin")?;
    let feed = std::thread::spawn(move || stdin.write_all(text.as_bytes()));
    let done = child.wait_with_output()?;
    let _ = feed.join();
    let said = String::from_utf8_lossy(&done.stderr);
    ensure!(done.status.success(), "manifests.py failed:\n{said}");
    let answers: Vec<Value> = serde_json::from_slice(&done.stdout).context("answers")?;
    ensure!(answers.len() == questions.len(), "{} answers to {}", answers.len(), questions.len());
    Ok(answers)
}

/// The chart rendered.
#[derive(Clone, Debug)]
pub struct Rendered {
    /// Its objects.
    pub objects: Vec<Value>,
    /// What Helm prints at the end of an installation.
    pub notes: String,
}

impl Rendered {
    /// The objects of a kind.
    pub fn all(&self, kind: &str) -> impl Iterator<Item = &Value> {
        self.objects.iter().filter(move |object| object["kind"] == kind)
    }

    /// The first object of a kind.
    ///
    /// # Errors
    /// When there is none.
    pub fn one(&self, kind: &str) -> Result<&Value> {
        self.all(kind).next().with_context(|| format!("no {kind}"))
    }

    /// The spec of the sensor's pod.
    ///
    /// # Errors
    /// When there is none.
    pub fn pod(&self) -> Result<&Value> {
        self.one("DaemonSet")?.pointer("/spec/template/spec").context("no pod")
    }

    /// The sensor's container.
    ///
    /// # Errors
    /// When there is none.
    pub fn container(&self) -> Result<&Value> {
        self.pod()?.pointer("/containers/0").context("no container")
    }

    /// The text of the configuration.
    ///
    /// # Errors
    /// When there is none.
    pub fn config(&self) -> Result<&str> {
        let holds = |map: &&Value| map["data"]["config.yaml"].is_string();
        let map = self.all("ConfigMap").find(holds).context("no configuration")?;
        map["data"]["config.yaml"].as_str().context("no text")
    }
}

/// A question for the chart with these values, on this version.
#[must_use]
pub fn render_question(values: &Value, kubernetes: &str) -> Value {
    json!({"do": "render", "chart": chart(), "values": values, "kubernetes": format!("{kubernetes}.0")})
}

/// Reads its answer.
///
/// # Errors
/// With what Helm said.
pub fn rendered(answer: &Value) -> Result<Rendered> {
    if let Some(error) = answer["error"].as_str() {
        bail!("{error}");
    }
    let objects = answer["objects"].as_array().context("no objects")?.clone();
    Ok(Rendered { objects, notes: answer["notes"].as_str().unwrap_or_default().to_owned() })
}

/// The chart with these values, on the newest version.
///
/// # Errors
/// With what Helm said.
pub fn render(values: &Value) -> Result<Rendered> {
    let newest = VERSIONS.last().copied().unwrap_or_default();
    rendered(ask(&[render_question(values, newest)])?.first().context("no answer")?)
}

/// Reads YAML documents.
///
/// # Errors
/// When they are none.
pub fn read(file: &Path) -> Result<Vec<Value>> {
    let text = std::fs::read_to_string(file).with_context(|| file.display().to_string())?;
    Ok(rendered(ask(&[json!({"do": "read", "text": text})])?.first().context("no answer")?)?.objects)
}
