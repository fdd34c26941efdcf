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

  # By zone, the number of its gateway. Where a resource takes another's number, it takes it from such a
  # list, which a test can read: OpenTofu's mocks give all instances of a resource the same id.
  nat_gateway_of_zone = [for i in range(3) : var.enable_nat_gateway_ha ? i : 0]

  # The single zone is the first: there the single NAT gateway is, too.
  node_zone_numbers = var.nodes_single_az ? [0] : range(3)
  node_zones        = [for i in local.node_zone_numbers : local.zones[i]]

  arm64          = contains(data.aws_ec2_instance_type.node.supported_architectures, "arm64")
  node_ami_type  = local.arm64 ? "AL2023_ARM_64_STANDARD" : "AL2023_x86_64_STANDARD"
  node_has_disks = data.aws_ec2_instance_type.node.instance_storage_supported

  # The day on which a version's standard support ends, as in README.md, "Upgrade Kubernetes". A version
  # that is missing here came after this file, and is taken to be supported.
  standard_support_ends = {
    "1.34" = "2026-12-02"
    "1.35" = "2027-03-27"
    "1.36" = "2027-08-02"
  }
  standard_support_end = "${lookup(local.standard_support_ends, var.kubernetes_version, "9999-12-31")}T00:00:00Z"
  support_as_of        = var.support_as_of == null ? plantimestamp() : "${var.support_as_of}T00:00:00Z"

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

check "api_reachable" {
  assert {
    condition = alltrue([
      for cidr in var.cluster_endpoint_public_access_cidrs :
      !can(regex("^(192\\.0\\.2|198\\.51\\.100|203\\.0\\.113)\\.", cidr))
    ])
    error_message = "cluster_endpoint_public_access_cidrs has a range of documents (RFC 5737), in which nobody is: 192.0.2.0/24, 198.51.100.0/24 and 203.0.113.0/24 are examples. Your own address: curl -4 -s https://checkip.amazonaws.com"
  }
}

check "standard_support" {
  assert {
    condition     = timecmp(local.support_as_of, local.standard_support_end) < 0
    error_message = "Standard support of Kubernetes ${var.kubernetes_version} on EKS ends on ${substr(local.standard_support_end, 0, 10)}. From that day on the control plane costs 0.60 instead of 0.10 $/h: choose another kubernetes_version (README.md, \"Upgrade Kubernetes\")."
  }
}
