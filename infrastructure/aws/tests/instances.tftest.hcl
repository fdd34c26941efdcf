# What rests on mocked ids that differ from instance to instance, as Terraform's do. OpenTofu reads
# instances.tofutest.hcl in its place.

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

run "nat_gateways_in_each_zone_are_three" {
  command = apply

  variables {
    enable_nat_gateway_ha = true
  }

  assert {
    condition     = length(distinct(aws_nat_gateway.this[*].id)) == 3
    error_message = "The three must be three."
  }
}

run "the_control_plane_stays_in_three_zones" {
  command = apply

  variables {
    nodes_single_az = true
  }

  assert {
    condition     = length(aws_eks_cluster.this.vpc_config[0].subnet_ids) == 3
    error_message = "The control plane must stay in three zones."
  }
}
