# The nodes: a managed node group, started from a launch template.
#
# What the template must leave out, because EKS fills it in: image_id, instance_type,
# iam_instance_profile, subnets. And what the node group must leave out, because there is a
# template: disk_size, remote_access.

locals {
  # What nodeadm reads at boot. `spec.cluster` is left out: EKS adds its own document with it.
  node_config = {
    apiVersion = "node.eks.aws/v1alpha1"
    kind       = "NodeConfig"
    spec = merge(
      {
        kubelet = {
          config = {
            # By default one worker compresses 10 MiB files, five a container. At 50,000 lines/s
            # it falls behind, and a line may be gone before an agent that was down has read it.
            # With these, 20 containers keep about 8.5 GB.
            containerLogMaxSize         = "100Mi"
            containerLogMaxFiles        = 5
            containerLogMaxWorkers      = 4
            containerLogMonitorInterval = "5s"
          }
        }
      },
      # Where the type has disks of its own (m6id, m7gd), they hold images, pods and their logs.
      { for key, value in { instance = { localStorage = { strategy = "RAID0" } } } : key => value if local.node_has_disks },
    )
  }

  node_user_data = join("\n", [
    "MIME-Version: 1.0",
    "Content-Type: multipart/mixed; boundary=\"BOUNDARY\"",
    "",
    "--BOUNDARY",
    "Content-Type: application/node.eks.aws",
    "",
    yamlencode(local.node_config),
    "--BOUNDARY--",
    "",
  ])

  # What EC2 creates from the template gets its tags from the template alone.
  node_tags = merge(local.tags, { Name = "${var.cluster_name}-node" })
}

resource "aws_launch_template" "node" {
  name_prefix            = "${var.cluster_name}-node-"
  description            = "Nodes of ${var.cluster_name}"
  update_default_version = true
  key_name               = var.key_name
  user_data              = base64encode(local.node_user_data)

  # A list here replaces what EKS would attach, which is the cluster's group. So it is named too:
  # without it no node reaches the API.
  vpc_security_group_ids = [
    aws_eks_cluster.this.vpc_config[0].cluster_security_group_id,
    aws_security_group.node_additional.id,
  ]

  # One hop: pods on the pod network do not reach the metadata service, and so not the node's role.
  metadata_options {
    http_endpoint               = "enabled"
    http_tokens                 = "required"
    http_put_response_hop_limit = 1
  }

  block_device_mappings {
    device_name = "/dev/xvda"

    ebs {
      volume_type           = "gp3"
      volume_size           = 100
      iops                  = 3000
      throughput            = 250
      encrypted             = true
      delete_on_termination = true
    }
  }

  dynamic "tag_specifications" {
    for_each = ["instance", "volume", "network-interface"]

    content {
      resource_type = tag_specifications.value
      tags          = local.node_tags
    }
  }
}

resource "aws_eks_node_group" "this" {
  cluster_name    = aws_eks_cluster.this.name
  node_group_name = "${var.cluster_name}-nodes"
  node_role_arn   = aws_iam_role.node.arn
  subnet_ids      = [for i in local.node_zone_numbers : aws_subnet.private[i].id]

  version        = aws_eks_cluster.this.version # The nodes follow the control plane.
  ami_type       = local.node_ami_type
  instance_types = [var.node_instance_type]
  capacity_type  = var.node_capacity_type

  # There is no autoscaler here, so there is nothing to ignore: the variable is the number of nodes.
  scaling_config {
    desired_size = var.node_desired_capacity
    min_size     = 1
    max_size     = var.node_max_size
  }

  update_config {
    max_unavailable = 1
  }

  launch_template {
    id      = aws_launch_template.node.id
    version = aws_launch_template.node.latest_version
  }

  lifecycle {
    precondition {
      condition     = var.node_desired_capacity <= var.node_max_size
      error_message = "node_desired_capacity (${var.node_desired_capacity}) is above node_max_size (${var.node_max_size}). Raise node_max_size too."
    }

    precondition {
      condition     = length(setsubtract(local.node_zones, data.aws_ec2_instance_type_offerings.node.locations)) == 0
      error_message = "${var.node_instance_type} is not offered in all of ${join(", ", local.node_zones)}. Choose another node_instance_type or aws_region."
    }
  }

  # A node joins with: rights, a way to the registries, and the add-ons that make its network. And
  # while nodes go away, all of this is still there, and so are the administrators.
  depends_on = [
    aws_iam_role_policy_attachment.node,
    aws_route.private_nat,
    aws_route_table_association.private,
    aws_vpc_security_group_ingress_rule.node_to_node,
    aws_vpc_security_group_egress_rule.node_all,
    aws_eks_addon.pod_identity_agent,
    aws_eks_addon.vpc_cni,
    aws_eks_addon.kube_proxy,
    aws_eks_access_policy_association.administrator,
  ]
}

# EKS makes the Auto Scaling group, and gives it its own tags only. The instances get theirs from the
# launch template, so none is handed down here.
resource "aws_autoscaling_group_tag" "node" {
  for_each = local.tags

  autoscaling_group_name = aws_eks_node_group.this.resources[0].autoscaling_groups[0].name

  tag {
    key                 = each.key
    value               = each.value
    propagate_at_launch = false
  }
}
