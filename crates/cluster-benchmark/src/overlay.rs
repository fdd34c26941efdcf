//! The overlay that is applied: the committed one, with the images by digest and Grafana's allowed
//! addresses. It is generated into `local/`, so that the committed files never change, and stays
//! there, so that it can be deleted as it was applied.

use std::{
    fs,
    path::{Path, PathBuf},
};

use serde_json::{Value, json};

use crate::{
    error::{Error, Result, file_error},
    images::{Image, ImageSet},
};

/// What is put on top of a committed overlay.
#[derive(Clone, Debug, Default)]
pub struct Changes {
    /// The images to run; none for those that the overlay names.
    pub images: Option<ImageSet>,
    /// Who may reach Grafana through the load balancer; empty for what the overlay says.
    pub grafana_allowed_cidrs: Vec<String>,
}

/// Writes `local/run/NAME/kustomization.yaml` on top of the kustomization in `base`, both from the
/// repository's root. The directory to apply, from there.
///
/// # Errors
/// The file can't be written.
pub fn write(root: &Path, name: &str, base: &Path, changes: &Changes) -> Result<PathBuf> {
    let directory = PathBuf::from("local/run").join(name);
    fs::create_dir_all(root.join(&directory)).map_err(file_error(&directory))?;
    let base = match base.is_absolute() {
        true => base.to_owned(),
        // Kustomize takes directories from where the file is.
        false => Path::new("../../..").join(base),
    };
    let text = kustomization(&base, changes).to_string();
    let path = root.join(&directory).join("kustomization.yaml");
    fs::write(&path, text).map_err(file_error(&path))?;
    Ok(directory)
}

/// Makes sure that a rendered overlay has the images that it was given. An edited overlay may have
/// renamed them, and then kustomize passes over a change without a word.
///
/// # Errors
/// Names the first that is missing.
pub fn check_images(rendered: &[u8], images: &ImageSet) -> Result<()> {
    let rendered = String::from_utf8_lossy(rendered);
    for image in &images.images {
        let reference = format!("{}@{}", image.repository, image.digest);
        if !rendered.contains(&reference) {
            return Err(Error::Refused(format!(
                "{reference} is not in the rendered overlay: its kustomization.yaml names {} \
                 otherwise. Leave the images there as they are, and say where they are with REGISTRY",
                image.name
            )));
        }
    }
    Ok(())
}

/// JSON is YAML, and needs no quoting rules of its own.
fn kustomization(base: &Path, changes: &Changes) -> Value {
    let mut value = json!({
        "apiVersion": "kustomize.config.k8s.io/v1beta1",
        "kind": "Kustomization",
        "resources": [base],
    });
    if let Some(set) = &changes.images {
        // An overlay in which the images have been renamed, say to those in ECR, has the second name.
        let entries = |image: &Image| {
            let Image { name, repository, digest } = image;
            let own = json!({"name": name, "newName": repository, "digest": digest});
            let renamed = json!({"name": repository, "digest": digest});
            [Some(own), (repository != name).then_some(renamed)].into_iter().flatten()
        };
        value["images"] = set.images.iter().flat_map(entries).collect();
    }
    if !changes.grafana_allowed_cidrs.is_empty() {
        let patch = json!([{
            "op": "replace",
            "path": "/spec/loadBalancerSourceRanges",
            "value": changes.grafana_allowed_cidrs,
        }]);
        value["patches"] = json!([{
            "target": {"kind": "Service", "name": "grafana"},
            "patch": patch.to_string(),
        }]);
    }
    value
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Scenario: no changes, then images and addresses.
    /// Guarantees: the base alone; then each image by digest, and a patch of Grafana's Service.
    #[test]
    fn changes_stand_on_top_of_the_base() {
        let root = tempfile::tempdir().unwrap();
        let read = |directory: &Path| -> Value {
            let text = fs::read(root.path().join(directory).join("kustomization.yaml")).unwrap();
            serde_json::from_slice(&text).unwrap()
        };
        let base = Path::new("deployment/aws");
        let directory = write(root.path(), "c", base, &Changes::default()).unwrap();
        let plain = read(&directory);
        assert_eq!(plain["resources"], json!(["../../../deployment/aws"]));
        assert_eq!((plain.get("images"), plain.get("patches")), (None, None));

        let image = Image {
            name: "ghcr.io/ollygarden/thyme",
            repository: "r/thyme".to_owned(),
            digest: "sha256:1".to_owned(),
        };
        let changes = Changes {
            images: Some(ImageSet { tag: "t".to_owned(), images: vec![image] }),
            grafana_allowed_cidrs: vec!["203.0.113.7/32".to_owned()],
        };
        write(root.path(), "c", base, &changes).unwrap();
        let changed = read(&directory);
        assert_eq!(
            changed["images"],
            json!([
                {"name": "ghcr.io/ollygarden/thyme", "newName": "r/thyme", "digest": "sha256:1"},
                {"name": "r/thyme", "digest": "sha256:1"},
            ])
        );
        assert_eq!(changed["patches"][0]["target"]["name"], "grafana");
        assert!(changed["patches"][0]["patch"].as_str().unwrap().contains("203.0.113.7/32"));
    }

    /// Scenario: a rendered overlay with one of two images.
    /// Guarantees: the other is missed by name.
    #[test]
    fn images_that_were_passed_over_are_missed() {
        let image = |repository: &str| Image {
            name: "ghcr.io/ollygarden/thyme",
            repository: repository.to_owned(),
            digest: "sha256:1".to_owned(),
        };
        let mut set = ImageSet { tag: "t".to_owned(), images: vec![image("r/a")] };
        let rendered = b"image: r/a@sha256:1\nimage: r/b:latest\n";
        check_images(rendered, &set).unwrap();
        set.images.push(image("r/b"));
        let error = check_images(rendered, &set).unwrap_err().to_string();
        assert!(error.contains("r/b@sha256:1 is not in the rendered overlay"), "{error}");
    }
}
