//! Whether a registry gives an image to somebody without an account, as the nodes of a cluster are: they
//! pull without the operator's login. By the registries' common protocol, with curl.

use serde_json::Value;

use crate::{
    answer::text_at,
    error::{Error, Result},
    images::{Image, ImageSet},
    tools::{Invocation, Tools},
};

/// What an image may be described by.
const KINDS: &str = "Accept: application/vnd.oci.image.index.v1+json, \
                     application/vnd.oci.image.manifest.v1+json, \
                     application/vnd.docker.distribution.manifest.list.v2+json, \
                     application/vnd.docker.distribution.manifest.v2+json";

/// Asks for each image by its digest, without a login.
///
/// # Errors
/// One is not given, or the registry can't be asked.
pub fn require_public(tools: &Tools, images: &ImageSet) -> Result<()> {
    images.images.iter().filter(|image| !is_of_nodes(image)).try_for_each(|image| ask(tools, image))
}

/// EKS nodes log in to ECR by themselves, with their role.
fn is_of_nodes(image: &Image) -> bool {
    let host = split(&image.repository).0;
    host.contains(".dkr.ecr.")
        && (host.ends_with(".amazonaws.com") || host.ends_with(".amazonaws.com.cn"))
}

/// Host and path of a repository. A name without a host is Docker Hub's.
fn split(repository: &str) -> (&str, &str) {
    match repository.split_once('/') {
        Some(("docker.io", path)) => ("registry-1.docker.io", path),
        Some((host, path)) if host.contains(['.', ':']) => (host, path),
        _ => ("registry-1.docker.io", repository),
    }
}

fn ask(tools: &Tools, image: &Image) -> Result<()> {
    let (host, path) = split(&image.repository);
    let url = format!("https://{host}/v2/{path}/manifests/{}", image.digest);
    let quiet = ["-sS", "--max-time", "20"];
    let head = |login: Option<String>| {
        let login = login
            .into_iter()
            .flat_map(|token| ["-H".to_owned(), format!("Authorization: Bearer {token}")]);
        let fixed = quiet.iter().chain(&["--head", "-H", KINDS]).map(|&word| word.to_owned());
        tools.text(&Invocation::new("curl", fixed.chain(login).chain([url.clone()])))
    };
    let mut answer = head(None)?;
    if status(&answer) == "401"
        && let Some(challenge) = challenge(&answer)
    {
        let data = [format!("service={}", challenge.service), format!("scope={}", challenge.scope)];
        let fixed = quiet.iter().chain(&["--get"]).map(|&word| word.to_owned());
        let data = data.into_iter().flat_map(|one| ["--data-urlencode".to_owned(), one]);
        let token = Invocation::new("curl", fixed.chain(data).chain([challenge.realm]));
        // A refusal comes as JSON as well, without a token.
        let token: Value = tools.json(&token)?;
        let token = ["/token", "/access_token"].map(|at| text_at(&token, at));
        if let Some(token) = token.into_iter().find(|token| !token.is_empty()) {
            answer = head(Some(token))?;
        }
    }
    match status(&answer) {
        "200" => Ok(()),
        status => Err(Error::Refused(format!(
            "{}@{} is not given to somebody without a login (status {status}), and the nodes have \
             none: make the package public, or use ECR (infrastructure/aws/README.md)",
            image.repository, image.digest
        ))),
    }
}

/// The last status: a proxy's answer to CONNECT stands before it.
fn status(answer: &str) -> &str {
    let line = answer.lines().rfind(|line| line.starts_with("HTTP/"));
    line.and_then(|line| line.split_whitespace().nth(1)).unwrap_or("none")
}

/// Where a token for reading is had.
#[derive(Debug, PartialEq, Eq)]
struct Challenge {
    realm: String,
    service: String,
    scope: String,
}

fn challenge(answer: &str) -> Option<Challenge> {
    let value = answer.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("www-authenticate").then(|| value.trim())
    })?;
    let (scheme, parameters) = value.split_once(' ')?;
    if !scheme.eq_ignore_ascii_case("bearer") {
        return None;
    }
    let parameter = |name: &str| {
        let start = parameters.find(&format!("{name}=\""))? + name.len() + 2;
        parameters[start..].split('"').next().map(str::to_owned)
    };
    let realm = parameter("realm").filter(|realm| realm.starts_with("https://"))?;
    Some(Challenge {
        realm,
        service: parameter("service").unwrap_or_default(),
        scope: parameter("scope").unwrap_or_default(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Scenario: registries' names as REGISTRY has them.
    /// Guarantees: host and path; Docker Hub by its own host; only ECR is left to the nodes' role.
    #[test]
    fn names_are_split() {
        assert_eq!(split("ghcr.io/a/thyme"), ("ghcr.io", "a/thyme"));
        assert_eq!(split("docker.io/a/thyme"), ("registry-1.docker.io", "a/thyme"));
        assert_eq!(split("a/thyme"), ("registry-1.docker.io", "a/thyme"));
        let is_ecr = |repository: &str| {
            is_of_nodes(&Image { name: "", repository: repository.into(), digest: String::new() })
        };
        assert!(is_ecr("123456789012.dkr.ecr.eu-central-1.amazonaws.com/thyme"));
        assert!(!is_ecr("ghcr.io/a.dkr.ecr.x.amazonaws.com/thyme"));
        assert!(!is_ecr("1.dkr.ecr.x.amazonaws.com.example/thyme"));
    }

    /// Scenario: a challenge behind a proxy's answer, in other letters; one of another kind; one that
    /// would send the question over plain HTTP.
    /// Guarantees: the last status; the three parameters; none of the others.
    #[test]
    fn challenges_are_read() {
        let answer = "HTTP/1.1 200 Connection established\r\n\r\nHTTP/2 401 \r\nWWW-Authenticate: \
                      Bearer realm=\"https://ghcr.io/token\",service=\"ghcr.io\",\
                      scope=\"repository:a/thyme:pull\"\r\n";
        assert_eq!(status(answer), "401");
        let found = challenge(answer).unwrap();
        assert_eq!(found.realm, "https://ghcr.io/token");
        assert_eq!(
            (found.service.as_str(), found.scope.as_str()),
            ("ghcr.io", "repository:a/thyme:pull")
        );
        assert_eq!(challenge("www-authenticate: Basic realm=\"https://x\""), None);
        assert_eq!(challenge("www-authenticate: Bearer realm=\"http://x\""), None);
        assert_eq!(status(""), "none");
    }
}
