//! The images of this commit, by digest: what is measured is what was built, whatever a tag points
//! to by then.

use serde_json::Value;

use crate::{
    answer::text_at,
    cli::LoadOptions,
    error::{Error, Result},
    limits::BUILD_MAX,
    tools::{Invocation, Tools},
};

/// How the committed overlays name the images, and how they are called below the registry.
pub const IMAGES: [(&str, &str); 3] = [
    ("ghcr.io/ollygarden/thyme", "thyme"),
    ("ghcr.io/ollygarden/thyme/log-generator", "thyme/log-generator"),
    ("ghcr.io/ollygarden/thyme/nop-collector", "thyme/nop-collector"),
];

/// One image to run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Image {
    /// As the overlay names it.
    pub name: &'static str,
    /// Where it is.
    pub repository: String,
    /// `sha256:` and 64 hexadecimal digits.
    pub digest: String,
}

/// The images, and the commit that they are of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImageSet {
    /// Tag they were found by.
    pub tag: String,
    /// One of each.
    pub images: Vec<Image>,
}

/// Checks for what builds images, and for what asks the registry.
///
/// # Errors
/// Names what is missing.
pub fn require_tools(tools: &Tools, options: &LoadOptions, hint: &'static str) -> Result<()> {
    let tool = options.container_tool.as_str();
    let both = [tool, "skopeo"];
    tools.require(if tool == "docker" { &both[..1] } else { &both }, hint)
}

/// Finds the images of this commit in the registry; builds and pushes them if they aren't there, for
/// a platform such as `linux/amd64` or for this machine's.
///
/// # Errors
/// The working tree has changes that no image of a commit can have, the images that are there are for
/// another platform, or the tools fail.
pub fn provide(tools: &Tools, options: &LoadOptions, platform: Option<&str>) -> Result<ImageSet> {
    if let Some(tag) = &options.image_tag {
        return find(tools, options, tag, platform);
    }
    let changed = tools.text(&Invocation::new("git", ["status", "--porcelain"]))?;
    if !changed.is_empty() {
        return Err(Error::Refused(format!(
            "the working tree has changes, or files that git does not know, so that no image is \
             this commit's. Commit them, or name images that were pushed before with IMAGE_TAG:\n{changed}"
        )));
    }
    // As deployment/images/images does, and so the workflows.
    let describe = ["describe", "--tags", "--always", "--abbrev=12"];
    let tag = tools.text(&Invocation::new("git", describe))?;
    match find(tools, options, &tag, platform) {
        // Not there, or not to be asked: building says which.
        Err(Error::Failed { .. } | Error::Answer { .. } | Error::TooLong { .. }) => {}
        found_or_stopped => return found_or_stopped,
    }
    let mut variables = vec![
        format!("TAG={tag}"),
        format!("REGISTRY={}", options.registry),
        format!("CONTAINER_TOOL={}", options.container_tool),
    ];
    variables.extend(platform.map(|platform| format!("PLATFORM={platform}")));
    for target in ["docker-build", "docker-push"] {
        let arguments = [target.to_owned()].into_iter().chain(variables.clone());
        tools.run(&Invocation::new("make", arguments).within(BUILD_MAX).shown())?;
    }
    find(tools, options, &tag, platform)
}

fn find(
    tools: &Tools,
    options: &LoadOptions,
    tag: &str,
    platform: Option<&str>,
) -> Result<ImageSet> {
    let mut images = Vec::new();
    for (name, path) in IMAGES {
        let repository = format!("{}/{path}", options.registry);
        let reference = format!("{repository}:{tag}");
        let inspect = inspection(&options.container_tool, &reference, platform);
        let answer: Value = tools.json(&inspect)?;
        let digest = digest(&answer).ok_or_else(|| Error::Answer {
            command: inspect.line(),
            problem: "there is no digest in it".to_owned(),
        })?;
        if let Some(platform) = platform {
            let found = platforms(&answer);
            if !found.iter().any(|one| one == platform) {
                return Err(Error::Refused(format!(
                    "{reference} is for {}, and the nodes are {platform}: make docker-build and \
                     docker-push with PLATFORM={platform}",
                    if found.is_empty() { "no known platform".into() } else { found.join(", ") },
                )));
            }
        }
        images.push(Image { name, repository, digest });
    }
    Ok(ImageSet { tag: tag.to_owned(), images })
}

/// Asks the registry, not the machine's own store: the nodes will ask it as well.
fn inspection(tool: &str, reference: &str, platform: Option<&str>) -> Invocation {
    // Podman and buildah answer for their own store only.
    if tool != "docker" {
        // Of an image for several platforms skopeo shows that of this machine, unless it is told.
        let chosen = platform.and_then(|platform| platform.split_once('/'));
        let chosen = chosen.map(|(system, architecture)| {
            [format!("--override-os={system}"), format!("--override-arch={architecture}")]
        });
        let fixed = ["inspect".to_owned(), format!("docker://{reference}")];
        return Invocation::new("skopeo", chosen.into_iter().flatten().chain(fixed));
    }
    let format = r#"{"digest":{{json .Manifest.Digest}},"image":{{json .Image}}}"#;
    let fixed = ["buildx", "imagetools", "inspect", "--format", format];
    Invocation::new(tool, fixed.into_iter().chain([reference]))
}

/// docker says `digest`, skopeo `Digest`.
fn digest(answer: &Value) -> Option<String> {
    ["/digest", "/Digest"].iter().map(|at| text_at(answer, at)).find(|text| {
        text.strip_prefix("sha256:")
            .is_some_and(|hex| hex.len() == 64 && hex.bytes().all(|byte| byte.is_ascii_hexdigit()))
    })
}

/// What an image is for, such as `linux/amd64`. docker shows its configuration, or one for each platform
/// by its name; skopeo says `Os` and `Architecture`.
fn platforms(answer: &Value) -> Vec<String> {
    let one = |system: String, architecture: String| format!("{system}/{architecture}");
    let image = &answer["image"];
    if image["architecture"].is_string() {
        return vec![one(text_at(image, "/os"), text_at(image, "/architecture"))];
    }
    if let Some(several) = image.as_object() {
        return several.keys().filter(|name| !name.starts_with("unknown")).cloned().collect();
    }
    match answer["Architecture"].is_string() {
        true => vec![one(text_at(answer, "/Os"), text_at(answer, "/Architecture"))],
        false => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// Scenario: what docker and skopeo answer, and answers without a digest.
    /// Guarantees: a whole digest or none.
    #[test]
    fn digests_are_found() {
        let whole = format!("sha256:{}", "0a".repeat(32));
        for name in ["digest", "Digest"] {
            assert_eq!(digest(&json!({name: whole})), Some(whole.clone()));
        }
        for answer in [json!(null), json!({}), json!({"digest": "sha256:12"})] {
            assert_eq!(digest(&answer), None, "{answer}");
        }
    }

    /// Scenario: what docker says of an image for one platform and of one for two with attestations,
    /// what skopeo says, and an answer that says nothing.
    /// Guarantees: each platform by name.
    #[test]
    fn platforms_are_found() {
        let arm = json!({"os": "linux", "architecture": "arm64"});
        assert_eq!(platforms(&json!({"image": arm})), ["linux/arm64"]);
        let several = json!({"linux/amd64": {}, "linux/arm64": {}, "unknown/unknown": {}});
        assert_eq!(platforms(&json!({"image": several})), ["linux/amd64", "linux/arm64"]);
        let skopeo = json!({"Os": "linux", "Architecture": "amd64"});
        assert_eq!(platforms(&skopeo), ["linux/amd64"]);
        assert!(platforms(&json!({"image": null})).is_empty());
    }
}
