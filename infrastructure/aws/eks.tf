# The control plane, who may use it, and its add-ons.

# Key for the Kubernetes secrets

resource "aws_kms_key" "secrets" {
  # checkov:skip=CKV2_AWS_64:The default key policy is wanted: it leaves access to IAM. One written here could only repeat it, or lock the account out of its own key.
  description             = "Kubernetes secrets of ${var.cluster_name}"
  enable_key_rotation     = true
  deletion_window_in_days = 7 # The shortest. A key that waits for its deletion costs nothing.

  tags = { Name = "${var.cluster_name}-secrets" }
}

resource "aws_kms_alias" "secrets" {
  name          = "alias/${var.cluster_name}-secrets"
  target_key_id = aws_kms_key.secrets.key_id
}

# Control plane logs. EKS would make the group itself, to keep for ever and outside of the state.

resource "aws_cloudwatch_log_group" "cluster" {
  # checkov:skip=CKV_AWS_158:Debug logs of a control plane that lives for hours. CloudWatch encrypts them at rest; a key of their own would outlive them by a week.
  # checkov:skip=CKV_AWS_338:Logs are switched on to find a fault and are worthless after it; a year of them would only cost.
  count = var.enable_cluster_logging ? 1 : 0

  name              = "/aws/eks/${var.cluster_name}/cluster"
  retention_in_days = var.cluster_log_retention_days
}

resource "aws_eks_cluster" "this" {
  # checkov:skip=CKV_AWS_39:The benchmark is driven from outside of the VPC. The public endpoint answers only the ranges that the caller names; a validation refuses the whole internet.
  # checkov:skip=CKV_AWS_37:Control plane logs cost money and serve debugging: enable_cluster_logging turns on all five.
  name     = var.cluster_name
  version  = var.kubernetes_version
  role_arn = aws_iam_role.cluster.arn

  enabled_cluster_log_types = var.enable_cluster_logging ? ["api", "audit", "authenticator", "controllerManager", "scheduler"] : []

  # The add-ons below are the only ones; nothing comes up that the state does not know.
  bootstrap_self_managed_addons = false

  vpc_config {
    subnet_ids              = aws_subnet.private[*].id
    endpoint_private_access = true # Nodes reach the API inside the VPC.
    endpoint_public_access  = true
    public_access_cidrs     = var.cluster_endpoint_public_access_cidrs
  }

  kubernetes_network_config {
    ip_family         = "ipv4"
    service_ipv4_cidr = local.service_cidr
  }

  access_config {
    authentication_mode = "API"

    # The creator gets an entry below, as everybody else does. Both at once conflict (409).
    bootstrap_cluster_creator_admin_permissions = false
  }

  encryption_config {
    resources = ["secrets"]

    provider {
      key_arn = aws_kms_key.secrets.arn
    }
  }

  # EXTENDED keeps the version when its standard support ends, at 0.60 $/h instead of 0.10 $/h.
  # STANDARD would upgrade the control plane by itself, and a plan would then want to go back.
  upgrade_policy {
    support_type = "EXTENDED"
  }

  # Also the order of deletion, read backwards: the roles keep their rights until the cluster is gone.
  depends_on = [
    aws_iam_role_policy_attachment.cluster,
    aws_iam_role_policy.cluster_secrets_key,
    aws_iam_role_policy.cluster_no_log_group,
    aws_cloudwatch_log_group.cluster,
  ]
}

# The cluster's own security group is made by EKS, where default_tags do not reach.
resource "aws_ec2_tag" "cluster_security_group" {
  for_each = local.tags

  resource_id = aws_eks_cluster.this.vpc_config[0].cluster_security_group_id
  key         = each.key
  value       = each.value
}

# Administrators: whoever applies, and those that are named. The entry of the nodes' role is made by
# EKS with the node group.

locals {
  administrators = setunion(var.admin_principal_arns, [data.aws_iam_session_context.current.issuer_arn])
}

resource "aws_eks_access_entry" "administrator" {
  for_each = local.administrators

  cluster_name  = aws_eks_cluster.this.name
  principal_arn = each.value
  type          = "STANDARD"
}

resource "aws_eks_access_policy_association" "administrator" {
  for_each = local.administrators

  cluster_name  = aws_eks_cluster.this.name
  principal_arn = aws_eks_access_entry.administrator[each.key].principal_arn
  policy_arn    = "arn:${data.aws_partition.current.partition}:eks::aws:cluster-access-policy/AmazonEKSClusterAdminPolicy"

  access_scope {
    type = "cluster"
  }
}

# Add-ons. Versions are looked up: the default one for the cluster's Kubernetes version. Each has a data
# source of its own: a test can then give each another version, and a swap of two is seen.
#
# Order: pod identity agent, network plugin and kube-proxy are there before the first node, so that
# nodes start with them; coredns comes after, because it is ready only where it can run.

data "aws_eks_addon_version" "coredns" {
  addon_name         = "coredns"
  kubernetes_version = var.kubernetes_version
  most_recent        = false
}

data "aws_eks_addon_version" "kube_proxy" {
  addon_name         = "kube-proxy"
  kubernetes_version = var.kubernetes_version
  most_recent        = false
}

data "aws_eks_addon_version" "pod_identity_agent" {
  addon_name         = "eks-pod-identity-agent"
  kubernetes_version = var.kubernetes_version
  most_recent        = false
}

data "aws_eks_addon_version" "vpc_cni" {
  addon_name         = "vpc-cni"
  kubernetes_version = var.kubernetes_version
  most_recent        = false
}

resource "aws_eks_addon" "pod_identity_agent" {
  cluster_name                = aws_eks_cluster.this.name
  addon_name                  = "eks-pod-identity-agent"
  addon_version               = data.aws_eks_addon_version.pod_identity_agent.version
  resolve_conflicts_on_create = "OVERWRITE"
  resolve_conflicts_on_update = "OVERWRITE"

  # A new node is tainted as not ready until the network plugin runs, and the plugin waits for this
  # agent's credentials: so the agent must start in spite of the taint. The add-on's default since 1.2;
  # written down, because without it no node ever joins.
  configuration_values = jsonencode({
    tolerations = [{ operator = "Exists" }]
  })
}

resource "aws_eks_addon" "vpc_cni" {
  cluster_name                = aws_eks_cluster.this.name
  addon_name                  = "vpc-cni"
  addon_version               = data.aws_eks_addon_version.vpc_cni.version
  resolve_conflicts_on_create = "OVERWRITE"
  resolve_conflicts_on_update = "OVERWRITE"

  configuration_values = jsonencode({
    # Without it NetworkPolicies are accepted and do nothing.
    enableNetworkPolicy = "true"

    env = {
      ENABLE_PREFIX_DELEGATION = "true"
      WARM_PREFIX_TARGET       = "1"

      # The plugin makes network interfaces of its own. One that it leaves behind blocks the deletion of
      # subnet and security group; the tags let it be found.
      ADDITIONAL_ENI_TAGS = jsonencode(local.tags)
    }
  })

  pod_identity_association {
    service_account = "aws-node"
    role_arn        = aws_iam_role.vpc_cni.arn
  }

  depends_on = [
    aws_eks_addon.pod_identity_agent,
    aws_iam_role_policy_attachment.vpc_cni,
  ]
}

resource "aws_eks_addon" "kube_proxy" {
  cluster_name                = aws_eks_cluster.this.name
  addon_name                  = "kube-proxy"
  addon_version               = data.aws_eks_addon_version.kube_proxy.version
  resolve_conflicts_on_create = "OVERWRITE"
  resolve_conflicts_on_update = "OVERWRITE"
}

resource "aws_eks_addon" "coredns" {
  cluster_name                = aws_eks_cluster.this.name
  addon_name                  = "coredns"
  addon_version               = data.aws_eks_addon_version.coredns.version
  resolve_conflicts_on_create = "OVERWRITE"
  resolve_conflicts_on_update = "OVERWRITE"

  depends_on = [aws_eks_node_group.this]
}
