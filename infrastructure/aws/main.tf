# What the other files share: who applies, where, and what the chosen instance type is.

data "aws_partition" "current" {}

data "aws_caller_identity" "current" {}

# A session of a role has an ARN of its own; the cluster's access entries take the role's.
data "aws_iam_session_context" "current" {
  arn = data.aws_caller_identity.current.arn
}

data "aws_availability_zones" "available" {
  # checkov:skip=CKV_AWS_394:Only the first three names are used, and a new zone gets a later letter. Pinned zone ids would tie the configuration to one region.
  state = "available"

  # EKS places no control plane in these.
  exclude_zone_ids = ["use1-az3", "usw1-az2", "cac1-az3"]

  # No Local Zones and no Wavelength Zones.
  filter {
    name   = "opt-in-status"
    values = ["opt-in-not-required"]
  }

  lifecycle {
    postcondition {
      condition     = length(self.names) >= 3
      error_message = "The region ${var.aws_region} has fewer than three zones that EKS can use. Choose another aws_region."
    }
  }
}

data "aws_ec2_instance_type" "node" {
  instance_type = var.node_instance_type

  lifecycle {
    postcondition {
      condition     = self.hypervisor == "nitro"
      error_message = "${var.node_instance_type} is no Nitro type. The network plugin's address prefixes need one: choose a current generation."
    }
  }
}

data "aws_ec2_instance_type_offerings" "node" {
  location_type = "availability-zone"

  filter {
    name   = "instance-type"
    values = [var.node_instance_type]
  }
}

locals {
  # The word "benchmark" is what these clusters are for. Cluster tells two of them in one account
  # apart, where a name alone does not.
  tags = {
    Project     = "Thyme"
    ManagedBy   = "OpenTofu"
    Environment = "benchmark"
    Cluster     = var.cluster_name
  }

  vpc_cidr = "10.0.0.0/16"

  # The Services' addresses. Outside the VPC's range, and where EKS would put them itself.
  service_cidr = "172.20.0.0/16"

  zones = slice(data.aws_availability_zones.available.names, 0, 3)

  # 10.0.1.0/24 to 10.0.3.0/24, and 10.0.11.0/24 to 10.0.13.0/24.
  public_subnet_cidrs  = [for i in range(3) : cidrsubnet(local.vpc_cidr, 8, i + 1)]
  private_subnet_cidrs = [for i in range(3) : cidrsubnet(local.vpc_cidr, 8, i + 11)]

  nat_gateway_count = var.enable_nat_gateway_ha ? 3 : 1

  # The single zone is the first: there the single NAT gateway is, too.
  node_zones      = var.nodes_single_az ? slice(local.zones, 0, 1) : local.zones
  node_subnet_ids = var.nodes_single_az ? slice(aws_subnet.private[*].id, 0, 1) : aws_subnet.private[*].id

  arm64          = contains(data.aws_ec2_instance_type.node.supported_architectures, "arm64")
  node_ami_type  = local.arm64 ? "AL2023_ARM_64_STANDARD" : "AL2023_x86_64_STANDARD"
  node_has_disks = data.aws_ec2_instance_type.node.instance_storage_supported

  # An empty list means the VPC's range, which is also what the committed manifest has.
  grafana_allowed_cidrs = length(var.grafana_allowed_cidrs) > 0 ? sort(var.grafana_allowed_cidrs) : [local.vpc_cidr]
}

# Checks warn and do not stop: each of these is allowed, and each surprises.

check "ssh_needs_range_and_key" {
  assert {
    condition     = (length(var.allowed_ssh_cidrs) > 0) == (var.key_name != null)
    error_message = "SSH needs both allowed_ssh_cidrs and key_name; with one of them alone nobody gets in."
  }
}

check "benchmark_fits" {
  assert {
    condition = (
      data.aws_ec2_instance_type.node.default_vcpus >= 8
      && data.aws_ec2_instance_type.node.memory_size >= 32768
      && var.node_desired_capacity >= 3
    )
    error_message = "The benchmark is sized for three nodes of 8 vCPU and 32 GiB. On less, some of its pods stay pending."
  }
}
