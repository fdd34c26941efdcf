# Bad input is refused before anything is created, and what only surprises is warned of.

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

run "api_open_to_everybody" {
  command = plan

  variables {
    cluster_endpoint_public_access_cidrs = ["0.0.0.0/0"]
  }

  expect_failures = [var.cluster_endpoint_public_access_cidrs]
}

run "api_open_to_everybody_beside_a_good_range" {
  command = plan

  variables {
    cluster_endpoint_public_access_cidrs = ["203.0.113.10/32", "0.0.0.0/0"]
  }

  expect_failures = [var.cluster_endpoint_public_access_cidrs]
}

run "api_open_to_half_the_internet" {
  command = plan

  variables {
    cluster_endpoint_public_access_cidrs = ["0.0.0.0/1", "128.0.0.0/1"]
  }

  expect_failures = [var.cluster_endpoint_public_access_cidrs]
}

run "api_wider_than_8" {
  command = plan

  variables {
    cluster_endpoint_public_access_cidrs = ["32.0.0.0/7"]
  }

  expect_failures = [var.cluster_endpoint_public_access_cidrs]
}

run "api_open_to_nobody" {
  command = plan

  variables {
    cluster_endpoint_public_access_cidrs = []
  }

  expect_failures = [var.cluster_endpoint_public_access_cidrs]
}

run "api_address_without_prefix" {
  command = plan

  variables {
    cluster_endpoint_public_access_cidrs = ["203.0.113.10"]
  }

  expect_failures = [var.cluster_endpoint_public_access_cidrs]
}

run "api_host_bits" {
  command = plan

  variables {
    cluster_endpoint_public_access_cidrs = ["203.0.113.10/24"]
  }

  expect_failures = [var.cluster_endpoint_public_access_cidrs]
}

run "api_no_address" {
  command = plan

  variables {
    cluster_endpoint_public_access_cidrs = ["localhost/32"]
  }

  expect_failures = [var.cluster_endpoint_public_access_cidrs]
}

run "api_ipv6" {
  command = plan

  variables {
    cluster_endpoint_public_access_cidrs = ["2001:db8::/32"]
  }

  expect_failures = [var.cluster_endpoint_public_access_cidrs]
}

run "api_private_or_reserved_10" {
  command = plan

  variables {
    cluster_endpoint_public_access_cidrs = ["10.1.2.3/32"]
  }

  expect_failures = [var.cluster_endpoint_public_access_cidrs]
}

run "api_private_or_reserved_172_16" {
  command = plan

  variables {
    cluster_endpoint_public_access_cidrs = ["172.16.0.0/12"]
  }

  expect_failures = [var.cluster_endpoint_public_access_cidrs]
}

run "api_private_or_reserved_172_31" {
  command = plan

  variables {
    cluster_endpoint_public_access_cidrs = ["172.31.0.0/16"]
  }

  expect_failures = [var.cluster_endpoint_public_access_cidrs]
}

run "api_private_or_reserved_192_168" {
  command = plan

  variables {
    cluster_endpoint_public_access_cidrs = ["192.168.1.0/24"]
  }

  expect_failures = [var.cluster_endpoint_public_access_cidrs]
}

run "api_private_or_reserved_carrier_grade_nat" {
  command = plan

  variables {
    cluster_endpoint_public_access_cidrs = ["100.64.0.0/10"]
  }

  expect_failures = [var.cluster_endpoint_public_access_cidrs]
}

run "api_private_or_reserved_loopback" {
  command = plan

  variables {
    cluster_endpoint_public_access_cidrs = ["127.0.0.1/32"]
  }

  expect_failures = [var.cluster_endpoint_public_access_cidrs]
}

run "api_private_or_reserved_link_local" {
  command = plan

  variables {
    cluster_endpoint_public_access_cidrs = ["169.254.0.0/16"]
  }

  expect_failures = [var.cluster_endpoint_public_access_cidrs]
}

run "api_private_or_reserved_multicast" {
  command = plan

  variables {
    cluster_endpoint_public_access_cidrs = ["224.0.0.0/8"]
  }

  expect_failures = [var.cluster_endpoint_public_access_cidrs]
}

run "api_more_than_the_quota" {
  command = plan

  variables {
    # Written out: OpenTofu 1.10 calls no function here.
    cluster_endpoint_public_access_cidrs = [
      "203.0.113.0/32", "203.0.113.1/32", "203.0.113.2/32", "203.0.113.3/32", "203.0.113.4/32",
      "203.0.113.5/32", "203.0.113.6/32", "203.0.113.7/32", "203.0.113.8/32", "203.0.113.9/32",
      "203.0.113.10/32", "203.0.113.11/32", "203.0.113.12/32", "203.0.113.13/32", "203.0.113.14/32",
      "203.0.113.15/32", "203.0.113.16/32", "203.0.113.17/32", "203.0.113.18/32", "203.0.113.19/32",
      "203.0.113.20/32", "203.0.113.21/32", "203.0.113.22/32", "203.0.113.23/32", "203.0.113.24/32",
      "203.0.113.25/32", "203.0.113.26/32", "203.0.113.27/32", "203.0.113.28/32", "203.0.113.29/32",
      "203.0.113.30/32", "203.0.113.31/32", "203.0.113.32/32", "203.0.113.33/32", "203.0.113.34/32",
      "203.0.113.35/32", "203.0.113.36/32", "203.0.113.37/32", "203.0.113.38/32", "203.0.113.39/32",
      "203.0.113.40/32",
    ]
  }

  expect_failures = [var.cluster_endpoint_public_access_cidrs]
}

run "api_ranges_of_documents_warn_192_0_2" {
  command = plan

  variables {
    cluster_endpoint_public_access_cidrs = ["198.18.0.10/32", "192.0.2.7/32"]
  }

  expect_failures = [check.api_reachable]
}

run "api_ranges_of_documents_warn_198_51_100" {
  command = plan

  variables {
    cluster_endpoint_public_access_cidrs = ["198.51.100.0/24"]
  }

  expect_failures = [check.api_reachable]
}

run "api_ranges_of_documents_warn_203_0_113" {
  command = plan

  variables {
    cluster_endpoint_public_access_cidrs = ["203.0.113.10/32"]
  }

  expect_failures = [check.api_reachable]
}

run "cluster_name_capitals" {
  command = plan

  variables {
    cluster_name = "Thyme"
  }

  expect_failures = [var.cluster_name]
}

run "cluster_name_underscore" {
  command = plan

  variables {
    cluster_name = "thyme_benchmark"
  }

  expect_failures = [var.cluster_name]
}

run "cluster_name_digit_first" {
  command = plan

  variables {
    cluster_name = "1thyme"
  }

  expect_failures = [var.cluster_name]
}

run "cluster_name_hyphen_last" {
  command = plan

  variables {
    cluster_name = "thyme-"
  }

  expect_failures = [var.cluster_name]
}

run "cluster_name_one_letter" {
  command = plan

  variables {
    cluster_name = "t"
  }

  expect_failures = [var.cluster_name]
}

run "cluster_name_empty" {
  command = plan

  variables {
    cluster_name = ""
  }

  expect_failures = [var.cluster_name]
}

run "cluster_name_too_long" {
  command = plan

  variables {
    cluster_name = "abcdefghijklmnopqrstuvwxyzabcd"
  }

  expect_failures = [var.cluster_name]
}

run "aws_region_zone" {
  command = plan

  variables {
    aws_region = "eu-central-1a"
  }

  expect_failures = [var.aws_region]
}

run "aws_region_words" {
  command = plan

  variables {
    aws_region = "Frankfurt"
  }

  expect_failures = [var.aws_region]
}

run "aws_region_empty" {
  command = plan

  variables {
    aws_region = ""
  }

  expect_failures = [var.aws_region]
}

run "kubernetes_version_too_old" {
  command = plan

  variables {
    kubernetes_version = "1.33"
  }

  expect_failures = [var.kubernetes_version]
}

run "kubernetes_version_patch" {
  command = plan

  variables {
    kubernetes_version = "1.34.2"
  }

  expect_failures = [var.kubernetes_version]
}

run "kubernetes_version_prefix" {
  command = plan

  variables {
    kubernetes_version = "v1.34"
  }

  expect_failures = [var.kubernetes_version]
}

run "kubernetes_version_two" {
  command = plan

  variables {
    kubernetes_version = "2.0"
  }

  expect_failures = [var.kubernetes_version]
}

run "last_day_of_standard_support" {
  command = plan

  variables {
    support_as_of = "2026-12-01"
  }

  assert {
    condition     = local.standard_support_end == "2026-12-02T00:00:00Z"
    error_message = "The default version's support must be known."
  }
}

run "first_day_of_extended_support_warns_1_34" {
  command = plan

  variables {
    support_as_of = "2026-12-02"
  }

  expect_failures = [check.standard_support]
}

run "first_day_of_extended_support_warns_1_35" {
  command = plan

  variables {
    kubernetes_version = "1.35"
    support_as_of      = "2027-03-27"
  }

  expect_failures = [check.standard_support]
}

run "first_day_of_extended_support_warns_1_36" {
  command = plan

  variables {
    kubernetes_version = "1.36"
    support_as_of      = "2027-08-02"
  }

  expect_failures = [check.standard_support]
}

run "support_is_that_of_today" {
  command = plan

  variables {
    kubernetes_version = "1.40" # Its end is not known, so that no day makes this fail.
    support_as_of      = null
  }

  assert {
    condition     = local.support_as_of == plantimestamp()
    error_message = "Without a day, support must be that of the plan's."
  }
}

run "support_as_of_no_day" {
  command = plan

  variables {
    support_as_of = "2026-13-01"
  }

  expect_failures = [var.support_as_of]
}

run "support_as_of_a_moment" {
  command = plan

  variables {
    support_as_of = "2026-12-01T00:00:00Z"
  }

  expect_failures = [var.support_as_of]
}

run "node_instance_type_without_size" {
  command = plan

  variables {
    node_instance_type = "m6i"
  }

  expect_failures = [var.node_instance_type]
}

run "no_nodes" {
  command = plan

  variables {
    node_desired_capacity = 0
  }

  expect_failures = [var.node_desired_capacity]
}

run "half_a_node" {
  command = plan

  variables {
    node_desired_capacity = 2.5
  }

  expect_failures = [var.node_desired_capacity]
}

run "no_room_for_a_fourth_node" {
  command = plan

  variables {
    node_max_size = 3
  }

  expect_failures = [var.node_max_size]
}

run "half_a_node_at_most" {
  command = plan

  variables {
    node_max_size = 4.5
  }

  expect_failures = [var.node_max_size]
}

run "capacity_type" {
  command = plan

  variables {
    node_capacity_type = "RESERVED"
  }

  expect_failures = [var.node_capacity_type]
}

run "log_retention" {
  command = plan

  variables {
    cluster_log_retention_days = 8
  }

  expect_failures = [var.cluster_log_retention_days]
}

run "grafana_open_to_everybody" {
  command = plan

  variables {
    grafana_allowed_cidrs = ["0.0.0.0/0"]
  }

  expect_failures = [var.grafana_allowed_cidrs]
}

run "grafana_host_bits" {
  command = plan

  variables {
    grafana_allowed_cidrs = ["203.0.113.10/24"]
  }

  expect_failures = [var.grafana_allowed_cidrs]
}

run "grafana_address_without_prefix" {
  command = plan

  variables {
    grafana_allowed_cidrs = ["203.0.113.10"]
  }

  expect_failures = [var.grafana_allowed_cidrs]
}

run "ssh_open_to_everybody" {
  command = plan

  variables {
    allowed_ssh_cidrs = ["0.0.0.0/0"]
    key_name          = "operator"
  }

  expect_failures = [var.allowed_ssh_cidrs]
}

run "ssh_host_bits" {
  command = plan

  variables {
    allowed_ssh_cidrs = ["10.0.1.7/24"]
    key_name          = "operator"
  }

  expect_failures = [var.allowed_ssh_cidrs]
}

run "key_name_empty" {
  command = plan

  variables {
    key_name          = ""
    allowed_ssh_cidrs = ["10.0.1.0/24"]
  }

  expect_failures = [var.key_name]
}

run "administrator_is_a_session" {
  command = plan

  variables {
    admin_principal_arns = ["arn:aws:sts::123456789012:assumed-role/operator/session"]
  }

  expect_failures = [var.admin_principal_arns]
}

run "administrator_is_a_name" {
  command = plan

  variables {
    admin_principal_arns = ["operator"]
  }

  expect_failures = [var.admin_principal_arns]
}

run "administrator_is_the_account" {
  command = plan

  variables {
    admin_principal_arns = ["arn:aws:iam::123456789012:root"]
  }

  expect_failures = [var.admin_principal_arns]
}

run "administrators_by_pattern" {
  command = plan

  variables {
    admin_principal_arns = ["arn:aws:iam::123456789012:role/*"]
  }

  expect_failures = [var.admin_principal_arns]
}

run "more_nodes_than_the_limit" {
  command = plan

  variables {
    node_desired_capacity = 7
  }

  expect_failures = [aws_eks_node_group.this]
}

run "too_few_zones" {
  command = plan

  variables {
    aws_region = "us-west-1"
  }

  override_data {
    target = data.aws_availability_zones.available
    values = { names = ["us-west-1a", "us-west-1c"] }
  }

  expect_failures = [data.aws_availability_zones.available]
}

run "type_is_not_in_every_zone" {
  command = plan

  variables {
    node_instance_type = "m7i.2xlarge"
  }

  override_data {
    target = data.aws_ec2_instance_type_offerings.node
    values = { locations = ["eu-central-1a", "eu-central-1b"] }
  }

  expect_failures = [aws_eks_node_group.this]
}

run "type_is_not_nitro" {
  command = plan

  variables {
    node_instance_type = "m4.2xlarge"
  }

  override_data {
    target = data.aws_ec2_instance_type.node
    values = {
      hypervisor                 = "xen"
      supported_architectures    = ["x86_64"]
      instance_storage_supported = false
      default_vcpus              = 8
      memory_size                = 32768
    }
  }

  expect_failures = [data.aws_ec2_instance_type.node]
}

run "two_nodes_warn" {
  command = plan

  variables {
    node_desired_capacity = 2
  }

  expect_failures = [check.benchmark_fits]
}

run "few_cpus_warn" {
  command = plan

  variables {
    node_instance_type = "c6i.2xlarge"
  }

  override_data {
    target = data.aws_ec2_instance_type.node
    values = {
      hypervisor                 = "nitro"
      supported_architectures    = ["x86_64"]
      instance_storage_supported = false
      default_vcpus              = 4
      memory_size                = 32768
    }
  }

  expect_failures = [check.benchmark_fits]
}

run "little_memory_warns" {
  command = plan

  variables {
    node_instance_type = "c6i.2xlarge"
  }

  override_data {
    target = data.aws_ec2_instance_type.node
    values = {
      hypervisor                 = "nitro"
      supported_architectures    = ["x86_64"]
      instance_storage_supported = false
      default_vcpus              = 8
      memory_size                = 16384
    }
  }

  expect_failures = [check.benchmark_fits]
}

run "good_at_the_edges" {
  command = plan

  variables {
    cluster_endpoint_public_access_cidrs = ["172.15.0.0/16", "172.32.0.0/16", "100.63.0.0/16", "100.128.0.0/16", "11.0.0.0/8", "192.167.1.0/24"]
    cluster_name                         = "abcdefghijklmnopqrstuvwxyzabc"
    kubernetes_version                   = "1.40"
    node_max_size                        = 4
    grafana_allowed_cidrs                = ["192.168.0.0/16"]
    admin_principal_arns                 = ["arn:aws-cn:iam::123456789012:user/some/path/name", "arn:aws:iam::123456789012:role/aws-reserved/sso.amazonaws.com/eu-central-1/AWSReservedSSO_Admin_0123456789abcdef"]
  }

  assert {
    condition     = length(aws_iam_role.vpc_cni.name_prefix) <= 38 && length(aws_iam_role.cluster.name_prefix) <= 38
    error_message = "The longest cluster name must leave room in a role's name."
  }
}
