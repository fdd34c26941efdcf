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
/// The working tree has changes that no image of a commit can have, or the tools fail.
pub fn provide(tools: &Tools, options: &LoadOptions, platform: Option<&str>) -> Result<ImageSet> {
    if let Some(tag) = &options.image_tag {
        return find(tools, options, tag);
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
    match find(tools, options, &tag) {
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
    find(tools, options, &tag)
}

fn find(tools: &Tools, options: &LoadOptions, tag: &str) -> Result<ImageSet> {
    let mut images = Vec::new();
    for (name, path) in IMAGES {
        let repository = format!("{}/{path}", options.registry);
        let inspect = inspection(&options.container_tool, &format!("{repository}:{tag}"));
        let digest = digest(&tools.text(&inspect)?).ok_or_else(|| Error::Answer {
            command: inspect.line(),
            problem: "there is no digest in it".to_owned(),
        })?;
        images.push(Image { name, repository, digest });
    }
    Ok(ImageSet { tag: tag.to_owned(), images })
}

/// Asks the registry, not the machine's own store: the nodes will ask it as well.
fn inspection(tool: &str, reference: &str) -> Invocation {
    match tool {
        // Podman and buildah answer for their own store only.
        "docker" => {
            let fixed = ["buildx", "imagetools", "inspect", "--format", "{{json .Manifest}}"];
            Invocation::new(tool, fixed.into_iter().chain([reference]))
        }
        _ => Invocation::new("skopeo", ["inspect", &format!("docker://{reference}")]),
    }
}

/// docker says `digest`, skopeo `Digest`.
fn digest(answer: &str) -> Option<String> {
    let answer: Value = serde_json::from_str(answer).ok()?;
    ["/digest", "/Digest"].iter().map(|at| text_at(&answer, at)).find(|text| {
        text.strip_prefix("sha256:")
            .is_some_and(|hex| hex.len() == 64 && hex.bytes().all(|byte| byte.is_ascii_hexdigit()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Scenario: what docker and skopeo answer, and answers without a digest.
    /// Guarantees: a whole digest or none.
    #[test]
    fn digests_are_found() {
        let whole = format!("sha256:{}", "0a".repeat(32));
        for name in ["digest", "Digest"] {
            assert_eq!(digest(&format!("{{\"{name}\":\"{whole}\"}}")), Some(whole.clone()));
        }
        for answer in ["", "{}", "{\"digest\":\"sha256:12\"}", "{\"digest\":\"latest\"}"] {
            assert_eq!(digest(answer), None, "{answer}");
        }
    }
}
