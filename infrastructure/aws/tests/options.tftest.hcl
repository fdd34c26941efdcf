# Each choice reaches what it is about, and nothing else has to be changed with it.

# The provider is mocked: these values stand for what AWS would answer.
mock_provider "aws" {
  mock_data "aws_partition" {
    defaults = {
      partition = "aws"
    }
  }

  mock_data "aws_caller_identity" {
    defaults = {
      account_id = "123456789012"
      arn        = "arn:aws:sts::123456789012:assumed-role/operator/session"
    }
  }

  mock_data "aws_iam_session_context" {
    defaults = {
      issuer_arn = "arn:aws:iam::123456789012:role/team/operator"
    }
  }

  mock_data "aws_availability_zones" {
    defaults = {
      names = ["eu-central-1a", "eu-central-1b", "eu-central-1c"]
    }
  }

  mock_data "aws_ec2_instance_type" {
    defaults = {
      hypervisor                 = "nitro"
      supported_architectures    = ["x86_64"]
      instance_storage_supported = false
      default_vcpus              = 8
      memory_size                = 32768
    }
  }

  mock_data "aws_ec2_instance_type_offerings" {
    defaults = {
      locations = ["eu-central-1a", "eu-central-1b", "eu-central-1c"]
    }
  }

  mock_resource "aws_iam_role" {
    defaults = {
      arn = "arn:aws:iam::123456789012:role/mocked"
    }
  }

  mock_resource "aws_kms_key" {
    defaults = {
      arn = "arn:aws:kms:eu-central-1:123456789012:key/00000000-0000-0000-0000-000000000000"
    }
  }

  mock_resource "aws_eks_node_group" {
    defaults = {
      resources = [{
        remote_access_security_group_id = ""
        autoscaling_groups              = [{ name = "eks-mocked" }]
      }]
    }
  }
}

variables {
  # No range of documents, of which a check warns: of RFC 2544, which nobody has either.
  cluster_endpoint_public_access_cidrs = ["198.18.0.10/32"]

  # The tests do not go by the calendar.
  support_as_of = "2026-11-24"
}

run "another_name_and_region" {
  command = plan

  variables {
    cluster_name = "my-test-cluster"
    aws_region   = "us-east-1"
  }

  assert {
    condition     = aws_eks_cluster.this.name == "my-test-cluster" && aws_eks_node_group.this.node_group_name == "my-test-cluster-nodes"
    error_message = "cluster_name must reach cluster and node group."
  }

  assert {
    condition     = aws_iam_role.node.name_prefix == "my-test-cluster-node-" && aws_kms_alias.secrets.name == "alias/my-test-cluster-secrets" && aws_security_group.node_additional.name == "my-test-cluster-node-additional"
    error_message = "cluster_name must reach the names that two clusters would share."
  }

  assert {
    condition     = alltrue([for s in aws_subnet.public : s.tags["kubernetes.io/cluster/my-test-cluster"] == "shared"])
    error_message = "cluster_name must reach the subnets' tags."
  }

  assert {
    condition     = alltrue([for spec in aws_launch_template.node.tag_specifications : spec.tags["Cluster"] == "my-test-cluster"])
    error_message = "cluster_name must reach the tag Cluster."
  }

  assert {
    condition     = output.region == "us-east-1" && output.configure_kubectl == "aws eks update-kubeconfig --region us-east-1 --name my-test-cluster"
    error_message = "Name and region must reach the outputs."
  }
}

run "kubernetes_1_36" {
  command = plan

  variables {
    kubernetes_version = "1.36"
  }

  assert {
    condition     = aws_eks_cluster.this.version == "1.36" && aws_eks_node_group.this.version == "1.36"
    error_message = "The nodes' version must follow the control plane's."
  }

  assert {
    condition = alltrue([
      for addon in [
        data.aws_eks_addon_version.coredns, data.aws_eks_addon_version.kube_proxy,
        data.aws_eks_addon_version.pod_identity_agent, data.aws_eks_addon_version.vpc_cni,
      ] : addon.kubernetes_version == "1.36" && addon.most_recent == false
    ])
    error_message = "Add-on versions must follow the control plane's."
  }
}

run "nat_gateway_in_each_zone" {
  command = apply

  variables {
    enable_nat_gateway_ha = true
  }

  assert {
    condition     = length(aws_nat_gateway.this) == 3 && length(aws_eip.nat) == 3
    error_message = "There must be three NAT gateways, with an address each."
  }

  assert {
    condition = alltrue([
      for i in range(3) :
      aws_nat_gateway.this[i].subnet_id == aws_subnet.public[i].id
      && aws_nat_gateway.this[i].allocation_id == aws_eip.nat[i].id
      && aws_route.private_nat[i].nat_gateway_id == aws_nat_gateway.this[i].id
    ])
    error_message = "Each private subnet must leave through its own zone's gateway."
  }

  assert {
    condition     = jsonencode(local.nat_gateway_of_zone) == jsonencode([0, 1, 2])
    error_message = "Each zone must have its own gateway."
  }
}

run "nodes_in_one_zone" {
  command = apply

  variables {
    nodes_single_az = true
  }

  assert {
    condition     = aws_eks_node_group.this.subnet_ids == toset([aws_subnet.private[0].id])
    error_message = "All nodes must be in the first zone."
  }

  assert {
    condition     = aws_nat_gateway.this[0].subnet_id == aws_subnet.public[0].id
    error_message = "The NAT gateway must be in the nodes' zone."
  }

  assert {
    condition     = jsonencode(local.node_zone_numbers) == jsonencode([0])
    error_message = "The nodes' only zone must be the first."
  }

  assert {
    condition     = aws_eks_cluster.this.vpc_config[0].subnet_ids == toset(aws_subnet.private[*].id)
    error_message = "The control plane must stay in three zones."
  }
}

run "one_zone_needs_the_type_in_that_zone_only" {
  command = plan

  variables {
    nodes_single_az = true
  }

  override_data {
    target = data.aws_ec2_instance_type_offerings.node
    values = { locations = ["eu-central-1a"] }
  }

  assert {
    condition     = aws_eks_node_group.this.node_group_name == "thyme-benchmark-nodes"
    error_message = "A type that the first zone has must do."
  }
}

run "spot" {
  command = plan

  variables {
    node_capacity_type = "SPOT"
  }

  assert {
    condition     = aws_eks_node_group.this.capacity_type == "SPOT"
    error_message = "node_capacity_type must reach the node group."
  }
}

run "four_nodes" {
  command = plan

  variables {
    node_desired_capacity = 4
  }

  assert {
    condition     = aws_eks_node_group.this.scaling_config[0].desired_size == 4
    error_message = "A fourth node must come by node_desired_capacity alone."
  }
}

run "four_nodes_at_the_smallest_limit" {
  command = plan

  variables {
    node_desired_capacity = 4
    node_max_size         = 4
  }

  assert {
    condition     = aws_eks_node_group.this.scaling_config[0].desired_size == 4 && aws_eks_node_group.this.scaling_config[0].max_size == 4
    error_message = "Four of four must be possible."
  }
}

run "arm64_type_gets_the_arm64_image" {
  command = plan

  variables {
    node_instance_type = "m7g.2xlarge"
  }

  override_data {
    target = data.aws_ec2_instance_type.node
    values = {
      hypervisor                 = "nitro"
      supported_architectures    = ["arm64"]
      instance_storage_supported = false
      default_vcpus              = 8
      memory_size                = 32768
    }
  }

  assert {
    condition     = aws_eks_node_group.this.ami_type == "AL2023_ARM_64_STANDARD" && jsonencode(aws_eks_node_group.this.instance_types) == jsonencode(["m7g.2xlarge"])
    error_message = "The image must follow the type's architecture."
  }
}

run "type_with_disks_keeps_logs_on_them" {
  command = plan

  variables {
    node_instance_type = "m6id.2xlarge"
  }

  override_data {
    target = data.aws_ec2_instance_type.node
    values = {
      hypervisor                 = "nitro"
      supported_architectures    = ["x86_64"]
      instance_storage_supported = true
      default_vcpus              = 8
      memory_size                = 32768
    }
  }

  assert {
    condition     = yamldecode(split("\n\n", split("\n--BOUNDARY", base64decode(aws_launch_template.node.user_data))[1])[1]).spec.instance.localStorage.strategy == "RAID0"
    error_message = "Disks of the instance must be used."
  }

  assert {
    condition     = yamldecode(split("\n\n", split("\n--BOUNDARY", base64decode(aws_launch_template.node.user_data))[1])[1]).spec.kubelet.config.containerLogMaxWorkers == 4
    error_message = "The rotation of logs must stay tuned."
  }
}

run "cluster_logging" {
  command = plan

  variables {
    enable_cluster_logging     = true
    cluster_log_retention_days = 3
  }

  assert {
    condition     = aws_eks_cluster.this.enabled_cluster_log_types == toset(["api", "audit", "authenticator", "controllerManager", "scheduler"])
    error_message = "All five logs must be on."
  }

  assert {
    condition     = aws_cloudwatch_log_group.cluster[0].name == "/aws/eks/thyme-benchmark/cluster" && aws_cloudwatch_log_group.cluster[0].retention_in_days == 3
    error_message = "The group must be the one that EKS writes to, and forget after the given days."
  }
}

run "ecr" {
  command = apply

  variables {
    enable_ecr = true
  }

  assert {
    condition     = jsonencode(sort([for repository in aws_ecr_repository.this : repository.name])) == jsonencode(["thyme", "thyme/log-generator", "thyme/nop-collector"])
    error_message = "There must be a repository for each image."
  }

  assert {
    condition     = alltrue([for repository in aws_ecr_repository.this : repository.force_delete && repository.image_scanning_configuration[0].scan_on_push && repository.encryption_configuration[0].encryption_type == "AES256"])
    error_message = "Repositories must go with their images, and scan and encrypt them."
  }

  assert {
    condition     = alltrue([for repository in aws_ecr_repository.this : repository.image_tag_mutability == "MUTABLE"])
    error_message = "The tag latest must be able to move."
  }

  assert {
    condition     = alltrue([for name, repository in aws_ecr_repository.this : output.ecr_repository_urls[name] == repository.repository_url]) && length(output.ecr_repository_urls) == 3
    error_message = "The repositories' addresses must be put out by name."
  }
}

run "grafana_for_named_ranges" {
  command = plan

  variables {
    grafana_allowed_cidrs = ["203.0.113.10/32", "198.51.100.0/24"]
  }

  assert {
    condition     = jsonencode(output.grafana_allowed_cidrs) == jsonencode(["198.51.100.0/24", "203.0.113.10/32"])
    error_message = "The given ranges must be put out, and no others."
  }
}

run "ssh" {
  command = plan

  variables {
    allowed_ssh_cidrs = ["10.0.1.0/24", "192.168.7.0/24"]
    key_name          = "operator"
  }

  assert {
    condition     = jsonencode(sort([for rule in aws_vpc_security_group_ingress_rule.ssh : rule.cidr_ipv4])) == jsonencode(["10.0.1.0/24", "192.168.7.0/24"])
    error_message = "Each range must get a rule."
  }

  assert {
    condition     = alltrue([for rule in aws_vpc_security_group_ingress_rule.ssh : rule.from_port == 22 && rule.to_port == 22 && rule.ip_protocol == "tcp"])
    error_message = "The rules must open port 22 alone."
  }

  assert {
    condition     = aws_launch_template.node.key_name == "operator"
    error_message = "The key must be on the nodes."
  }
}

run "ssh_ranges_without_a_key_open_nothing" {
  command = plan

  variables {
    allowed_ssh_cidrs = ["10.0.1.0/24"]
  }

  assert {
    condition     = length(aws_vpc_security_group_ingress_rule.ssh) == 0
    error_message = "Without a key there must be no rule."
  }

  expect_failures = [check.ssh_needs_range_and_key]
}

run "ssh_key_without_ranges_opens_nothing" {
  command = plan

  variables {
    key_name = "operator"
  }

  assert {
    condition     = length(aws_vpc_security_group_ingress_rule.ssh) == 0
    error_message = "Without ranges there must be no rule."
  }

  expect_failures = [check.ssh_needs_range_and_key]
}

run "more_administrators" {
  command = plan

  variables {
    admin_principal_arns = [
      "arn:aws:iam::123456789012:role/ci",
      "arn:aws:iam::123456789012:role/team/operator",
    ]
  }

  assert {
    condition = jsonencode(keys(aws_eks_access_entry.administrator)) == jsonencode([
      "arn:aws:iam::123456789012:role/ci",
      "arn:aws:iam::123456789012:role/team/operator",
    ])
    error_message = "Those named and the one who applies must get an entry each, and one who is both must get one."
  }

  assert {
    condition     = alltrue([for association in aws_eks_access_policy_association.administrator : endswith(association.policy_arn, "/AmazonEKSClusterAdminPolicy")]) && length(aws_eks_access_policy_association.administrator) == 2
    error_message = "All of them must be administrators."
  }
}

run "another_partition" {
  command = plan

  override_data {
    target = data.aws_partition.current
    values = { partition = "aws-us-gov" }
  }

  assert {
    condition     = aws_iam_role_policy_attachment.cluster.policy_arn == "arn:aws-us-gov:iam::aws:policy/AmazonEKSClusterPolicy"
    error_message = "ARNs must be of the partition."
  }
}

run "more_than_three_zones" {
  command = plan

  override_data {
    target = data.aws_availability_zones.available
    values = { names = ["eu-central-1a", "eu-central-1b", "eu-central-1c", "eu-central-1d"] }
  }

  assert {
    condition     = jsonencode(aws_subnet.private[*].availability_zone) == jsonencode(["eu-central-1a", "eu-central-1b", "eu-central-1c"])
    error_message = "The first three zones must be used."
  }
}
