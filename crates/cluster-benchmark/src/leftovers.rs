//! What still exists by its tags. Listings by tag go on showing what was deleted hours ago, so each
//! resource is confirmed by the service that it belongs to.

use serde_json::Value;

use crate::{
    answer::{list_at, text_at},
    error::{Error, Result},
    infrastructure::aws,
    tools::Tools,
};

/// A resource that still exists, or whose service did not say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Leftover {
    /// Its name in AWS.
    pub arn: String,
    /// Whether its service has confirmed it; otherwise why not.
    pub doubt: Option<String>,
}

/// How a service is asked about one resource.
struct Question {
    arguments: Vec<String>,
    /// Where in the answer a state stands, if it has one.
    state: &'static str,
    /// States of what is gone, or costs nothing any more.
    gone: &'static [&'static str],
}

/// Asks AWS for everything with the tag `Project=Thyme` in a region, and then about each.
///
/// # Errors
/// The listing can't be had.
pub fn find(tools: &Tools, region: &str) -> Result<Vec<Leftover>> {
    let list: Value = tools.json(&aws(
        region,
        ["resourcegroupstaggingapi", "get-resources", "--tag-filters", "Key=Project,Values=Thyme"],
    ))?;
    let mut left = Vec::new();
    for resource in list_at(&list, "/ResourceTagMappingList") {
        let arn = text_at(resource, "/ResourceARN");
        let doubt = match question(&arn) {
            None => Some("no rule for how to ask about it".to_owned()),
            Some(question) => match exists(tools, region, &question)? {
                Exists::Yes => None,
                Exists::No => continue,
                Exists::Unknown(why) => Some(why),
            },
        };
        left.push(Leftover { arn, doubt });
    }
    Ok(left)
}

enum Exists {
    Yes,
    No,
    Unknown(String),
}

fn exists(tools: &Tools, region: &str, question: &Question) -> Result<Exists> {
    match tools.json::<Value>(&aws(region, question.arguments.iter().map(String::as_str))) {
        Ok(answer) => {
            let state = text_at(&answer, question.state);
            let is_gone = question.gone.contains(&state.as_str()) || is_empty_list(&answer);
            Ok(if is_gone { Exists::No } else { Exists::Yes })
        }
        // The services say so in many words: ResourceNotFoundException, InvalidVpcID.NotFound,
        // NoSuchEntity, RepositoryNotFoundException.
        Err(Error::Failed { message, .. })
            if message.contains("NotFound") || message.contains("NoSuchEntity") =>
        {
            Ok(Exists::No)
        }
        Err(Error::Interrupted(signal)) => Err(Error::Interrupted(signal)),
        Err(error) => Ok(Exists::Unknown(error.to_string())),
    }
}

/// A listing with a filter answers with an empty list rather than with an error.
fn is_empty_list(answer: &Value) -> bool {
    let lists = answer.as_object().into_iter().flat_map(|object| object.values());
    let mut lists = lists.filter_map(Value::as_array).peekable();
    lists.peek().is_some() && lists.all(Vec::is_empty)
}

/// `arn:partition:service:region:account:resource`, and who knows about it.
fn question(arn: &str) -> Option<Question> {
    let mut parts = arn.splitn(6, ':').skip(2);
    let (service, resource) = (parts.next()?, parts.nth(2)?);
    let (kind, id) = resource.split_once(['/', ':']).unwrap_or((resource, resource));
    let ask = |arguments: &[&str], state, gone| {
        let arguments = arguments.iter().map(|&argument| argument.to_owned()).collect();
        Some(Question { arguments, state, gone })
    };
    match (service, kind) {
        ("ec2", _) => ec2(kind, id),
        ("eks", "cluster") => {
            ask(&["eks", "describe-cluster", "--name", id], "/cluster/status", &[])
        }
        ("eks", "nodegroup") => {
            let (cluster, rest) = id.split_once('/')?;
            let group = rest.split('/').next()?;
            let arguments =
                ["eks", "describe-nodegroup", "--cluster-name", cluster, "--nodegroup-name", group];
            ask(&arguments, "/nodegroup/status", &[])
        }
        ("eks", "addon") => {
            let (cluster, rest) = id.split_once('/')?;
            let name = rest.split('/').next()?;
            ask(
                &["eks", "describe-addon", "--cluster-name", cluster, "--addon-name", name],
                "/addon/status",
                &[],
            )
        }
        // Both need the cluster to exist.
        ("eks", "access-entry" | "podidentityassociation") => {
            let cluster = id.split('/').next()?;
            ask(&["eks", "describe-cluster", "--name", cluster], "/cluster/status", &[])
        }
        ("elasticloadbalancing", "loadbalancer") => {
            ask(&["elbv2", "describe-load-balancers", "--load-balancer-arns", arn], "", &[])
        }
        ("elasticloadbalancing", "targetgroup") => {
            ask(&["elbv2", "describe-target-groups", "--target-group-arns", arn], "", &[])
        }
        ("elasticloadbalancing", "listener") => {
            ask(&["elbv2", "describe-listeners", "--listener-arns", arn], "", &[])
        }
        ("kms", "key") => ask(
            &["kms", "describe-key", "--key-id", id],
            "/KeyMetadata/KeyState",
            // It can't be deleted sooner, and costs nothing while it waits.
            &["PendingDeletion", "PendingReplicaDeletion"],
        ),
        ("logs", "log-group") => {
            ask(&["logs", "describe-log-groups", "--log-group-name-prefix", id], "", &[])
        }
        ("ecr", "repository") => {
            ask(&["ecr", "describe-repositories", "--repository-names", id], "", &[])
        }
        ("iam", "role") => {
            let name = id.rsplit('/').next()?;
            ask(&["iam", "get-role", "--role-name", name], "", &[])
        }
        ("autoscaling", "autoScalingGroup") => {
            let name = id.rsplit('/').next()?;
            let arguments =
                ["autoscaling", "describe-auto-scaling-groups", "--auto-scaling-group-names", name];
            ask(&arguments, "", &[])
        }
        _ => None,
    }
}

/// EC2 describes each kind of thing by a command and an option of its own.
fn ec2(kind: &str, id: &str) -> Option<Question> {
    let (command, option, state, gone): (_, _, _, &'static [&'static str]) = match kind {
        "instance" => (
            "describe-instances",
            "--instance-ids",
            "/Reservations/0/Instances/0/State/Name",
            &["terminated"],
        ),
        "natgateway" => {
            ("describe-nat-gateways", "--nat-gateway-ids", "/NatGateways/0/State", &["deleted"])
        }
        "volume" => ("describe-volumes", "--volume-ids", "", &[]),
        "vpc" => ("describe-vpcs", "--vpc-ids", "", &[]),
        "subnet" => ("describe-subnets", "--subnet-ids", "", &[]),
        "internet-gateway" => ("describe-internet-gateways", "--internet-gateway-ids", "", &[]),
        "route-table" => ("describe-route-tables", "--route-table-ids", "", &[]),
        "elastic-ip" => ("describe-addresses", "--allocation-ids", "", &[]),
        "security-group" => ("describe-security-groups", "--group-ids", "", &[]),
        "security-group-rule" => {
            ("describe-security-group-rules", "--security-group-rule-ids", "", &[])
        }
        "network-interface" => ("describe-network-interfaces", "--network-interface-ids", "", &[]),
        "launch-template" => ("describe-launch-templates", "--launch-template-ids", "", &[]),
        _ => return None,
    };
    let arguments = ["ec2", command, option, id].map(str::to_owned).to_vec();
    Some(Question { arguments, state, gone })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// Scenario: names of everything that the definitions make.
    /// Guarantees: each has a question, about the right thing.
    #[test]
    fn every_kind_has_a_question() {
        for (resource, expected) in [
            ("ec2:r:1:instance/i-1", "ec2 describe-instances --instance-ids i-1"),
            ("ec2:r:1:natgateway/nat-1", "ec2 describe-nat-gateways --nat-gateway-ids nat-1"),
            ("eks:r:1:cluster/c", "eks describe-cluster --name c"),
            (
                "eks:r:1:nodegroup/c/c-nodes/ab-cd",
                "eks describe-nodegroup --cluster-name c --nodegroup-name c-nodes",
            ),
            (
                "eks:r:1:addon/c/vpc-cni/ab",
                "eks describe-addon --cluster-name c --addon-name vpc-cni",
            ),
            ("kms:r:1:key/k-1", "kms describe-key --key-id k-1"),
            (
                "logs:r:1:log-group:/aws/eks/c/cluster",
                "logs describe-log-groups --log-group-name-prefix /aws/eks/c/cluster",
            ),
            ("ecr:r:1:repository/thyme/x", "ecr describe-repositories --repository-names thyme/x"),
            ("iam::1:role/c-nodes", "iam get-role --role-name c-nodes"),
        ] {
            let question = question(&format!("arn:aws:{resource}")).unwrap();
            assert_eq!(question.arguments.join(" "), expected);
        }
        let balancer = "arn:aws:elasticloadbalancing:r:1:loadbalancer/net/a/1";
        assert!(question(balancer).unwrap().arguments.contains(&balancer.to_owned()));
        assert!(question("arn:aws:s3:::bucket").is_none());
        assert!(question("nonsense").is_none());
    }

    /// Scenario: answers with an empty list, a full one, and none.
    /// Guarantees: only an empty list means that there is nothing.
    #[test]
    fn empty_lists_are_nothing() {
        assert!(is_empty_list(&json!({"logGroups": []})));
        assert!(!is_empty_list(&json!({"logGroups": [{}]})));
        assert!(!is_empty_list(&json!({"cluster": {"status": "ACTIVE"}})));
        assert!(!is_empty_list(&json!(null)));
    }
}
