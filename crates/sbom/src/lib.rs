//! A bill of materials in CycloneDX 1.6 (ECMA-424) of one program: every crate that it is linked
//! from, with version, licence and the checksum that cargo verified, and who depends on whom.
//!
//! The source is cargo's own resolution, with the features that all members of the workspace ask
//! for together. So a crate that only another program needs of a shared dependency may be listed
//! too; none is left out. Crates that only build or test are not listed. The same sources give the
//! same document: it has neither time nor number.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    process::Command,
};

use serde_json::{Value, json};

/// The programs that are shipped.
pub const PROGRAMS: [&str; 4] = ["thyme-agent", "log-generator", "nop-collector", "rig"];

/// What they are built for.
pub const TARGETS: [&str; 2] = ["x86_64-unknown-linux-gnu", "aarch64-unknown-linux-gnu"];

/// Why there is no document.
#[derive(Debug, thiserror::Error)]
pub enum SbomError {
    /// Cargo can't be started, or its answer can't be read.
    #[error("cargo {command}: {cause}")]
    Cargo {
        /// What it was asked for.
        command: &'static str,
        /// What went wrong.
        cause: String,
    },
    /// Cargo's answer lacks something that its documentation promises, or the program.
    #[error("cargo's metadata has no {0}")]
    Missing(String),
}

fn missing(what: &str) -> SbomError {
    SbomError::Missing(what.to_owned())
}

/// What cargo says about the workspace that the current directory is in.
#[derive(Debug)]
pub struct Workspace {
    /// `cargo metadata`: packages, and who depends on whom.
    metadata: Value,
    /// `cargo tree`: names and versions of what any member is linked from. Metadata alone take
    /// optional dependencies for needed that only tests ask for.
    linked: HashSet<(String, String)>,
}

impl Workspace {
    /// Asks cargo, as far as these targets are concerned.
    ///
    /// # Errors
    /// When cargo fails, for instance offline where a crate was never downloaded.
    pub fn read(targets: &[&str], offline: bool) -> Result<Self, SbomError> {
        let with_targets = |arguments: &[&'static str], option: &'static str| {
            let mut all: Vec<String> = arguments.iter().map(|&one| one.to_owned()).collect();
            all.extend(targets.iter().flat_map(|target| [option.to_owned(), (*target).to_owned()]));
            all.push("--locked".to_owned());
            all.extend(offline.then(|| "--offline".to_owned()));
            all
        };
        let metadata = with_targets(&["--format-version", "1"], "--filter-platform");
        let metadata = cargo("metadata", &metadata)?;
        let metadata = serde_json::from_str(&metadata)
            .map_err(|error| SbomError::Cargo { command: "metadata", cause: error.to_string() })?;
        let tree = ["--workspace", "--edges", "normal", "--prefix", "none", "--format", "{p}"];
        let tree = cargo("tree", &with_targets(&tree, "--target"))?;
        let linked = tree.lines().filter_map(|line| {
            let (name, rest) = line.split_once(" v")?;
            let version = rest.split(' ').next()?;
            Some((name.to_owned(), version.to_owned()))
        });
        Ok(Self { linked: linked.collect(), metadata })
    }

    fn is_linked(&self, package: &Value) -> Result<bool, SbomError> {
        let key = (text(&package["name"])?.to_owned(), text(&package["version"])?.to_owned());
        Ok(self.linked.contains(&key))
    }
}

fn cargo(command: &'static str, arguments: &[String]) -> Result<String, SbomError> {
    let failed = |cause| SbomError::Cargo { command, cause };
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(cargo).arg(command).args(arguments).output();
    let output = output.map_err(|error| failed(error.to_string()))?;
    if !output.status.success() {
        return Err(failed(String::from_utf8_lossy(&output.stderr).trim().to_owned()));
    }
    String::from_utf8(output.stdout).map_err(|error| failed(error.to_string()))
}

/// The document of one program; `lock` is the text of `Cargo.lock`.
///
/// # Errors
/// When the workspace does not have the program, or cargo's answer not the form that it documents.
pub fn document(workspace: &Workspace, lock: &str, program: &str) -> Result<Value, SbomError> {
    let mut packages: HashMap<&str, &Value> = HashMap::new();
    for package in list(&workspace.metadata["packages"])? {
        if workspace.is_linked(package)? {
            packages.insert(text(&package["id"])?, package);
        }
    }
    let mut edges = edges(&workspace.metadata)?;
    edges.values_mut().for_each(|ids| ids.retain(|id| packages.contains_key(id)));
    let is_program = |one: &&&Value| one["name"] == program && one["source"].is_null();
    let root = packages.values().find(is_program).ok_or_else(|| missing(program))?;
    let root = text(&root["id"])?;

    let mut linked = BTreeSet::from([root]);
    let mut open = vec![root];
    while let Some(id) = open.pop() {
        for &dependency in edges.get(id).into_iter().flatten() {
            if linked.insert(dependency) {
                open.push(dependency);
            }
        }
    }
    let checksums = checksums(lock);
    let mut components = BTreeMap::new();
    let mut dependencies = BTreeMap::new();
    for &id in &linked {
        let url = package_url(packages[id])?;
        let depends_on = edges.get(id).into_iter().flatten().map(|id| package_url(packages[id]));
        let depends_on = depends_on.collect::<Result<BTreeSet<_>, _>>()?;
        dependencies.insert(url.clone(), json!({"ref": url, "dependsOn": depends_on}));
        let kind = if id == root { "application" } else { "library" };
        components.insert(url, component(packages[id], kind, &checksums)?);
    }
    let program = components.remove(&package_url(packages[root])?);
    let components: Vec<Value> = components.into_values().collect();
    let dependencies: Vec<Value> = dependencies.into_values().collect();
    Ok(json!({
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {"component": program},
        "components": components,
        "dependencies": dependencies,
    }))
}

/// What each package is linked from, by their ids.
fn edges(metadata: &Value) -> Result<HashMap<&str, Vec<&str>>, SbomError> {
    let mut edges = HashMap::new();
    for node in list(&metadata["resolve"]["nodes"])? {
        let mut dependencies = Vec::new();
        for dependency in list(&node["deps"])? {
            // `null` is a normal one; others are for building and testing.
            if list(&dependency["dep_kinds"])?.any(|kind| kind["kind"].is_null()) {
                dependencies.push(text(&dependency["pkg"])?);
            }
        }
        edges.insert(text(&node["id"])?, dependencies);
    }
    Ok(edges)
}

fn component(
    package: &Value,
    kind: &str,
    checksums: &HashMap<(&str, &str), &str>,
) -> Result<Value, SbomError> {
    let (name, version) = (text(&package["name"])?, text(&package["version"])?);
    let url = package_url(package)?;
    let mut component = json!({
        "type": kind, "bom-ref": url, "name": name, "version": version, "purl": url,
    });
    if let Some(licence) = package["license"].as_str() {
        // Old crates write a slash where SPDX has OR.
        let expression = licence.replace(" / ", " OR ").replace('/', " OR ");
        component["licenses"] = json!([{"expression": expression}]);
    }
    if let Some(checksum) = checksums.get(&(name, version)) {
        component["hashes"] = json!([{"alg": "SHA-256", "content": checksum}]);
    }
    if let Some(repository) = package["repository"].as_str() {
        component["externalReferences"] = json!([{"type": "vcs", "url": repository}]);
    }
    Ok(component)
}

/// `pkg:cargo/name@version`; a `+` in a version is escaped, as purl's grammar wants.
fn package_url(package: &Value) -> Result<String, SbomError> {
    let (name, version) = (text(&package["name"])?, text(&package["version"])?);
    Ok(format!("pkg:cargo/{name}@{}", version.replace('+', "%2B")))
}

/// The checksums of a lock file by name and version.
fn checksums(lock: &str) -> HashMap<(&str, &str), &str> {
    let mut found = HashMap::new();
    for package in lock.split("[[package]]") {
        let value = |key: &str| {
            let line = package.lines().find_map(|line| line.strip_prefix(key));
            line.map(|value| value.trim_start_matches(" = ").trim_matches('"'))
        };
        if let (Some(name), Some(version), Some(checksum)) =
            (value("name"), value("version"), value("checksum"))
        {
            found.insert((name, version), checksum);
        }
    }
    found
}

fn list(value: &Value) -> Result<impl Iterator<Item = &Value>, SbomError> {
    Ok(value.as_array().ok_or_else(|| missing("list where one should be"))?.iter())
}

fn text(value: &Value) -> Result<&str, SbomError> {
    value.as_str().ok_or_else(|| missing("text where one should be"))
}
