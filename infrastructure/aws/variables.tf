# Variables, the important ones first. README.md has the same table; tests/check compares them.

variable "cluster_endpoint_public_access_cidrs" {
  description = <<-EOT
    IPv4 ranges that may reach the Kubernetes API from the internet, as a list: ["203.0.113.10/32"].
    There is no default, because the right answer is your own address, and the whole internet is
    never right. To find your address: curl -4 -s https://checkip.amazonaws.com
  EOT
  type        = set(string)
  nullable    = false

  validation {
    condition     = length(var.cluster_endpoint_public_access_cidrs) >= 1 && length(var.cluster_endpoint_public_access_cidrs) <= 40
    error_message = "Give at least one range, and at most 40 (the quota of EKS). Your own address: curl -4 -s https://checkip.amazonaws.com"
  }

  validation {
    condition = alltrue([
      for cidr in var.cluster_endpoint_public_access_cidrs :
      try(cidrsubnet(cidr, 0, 0) == cidr, false) && can(regex("^[0-9.]+/(8|9|[12][0-9]|3[0-2])$", cidr))
    ])
    error_message = "Each range must be IPv4 in its shortest form, such as 203.0.113.10/32 or 198.51.100.0/24 (no host bits), and no wider than /8. 0.0.0.0/0 would open the API to everybody."
  }

  validation {
    condition = alltrue([
      for cidr in var.cluster_endpoint_public_access_cidrs :
      !can(regex("^(0|10|127|169\\.254|172\\.(1[6-9]|2[0-9]|3[01])|192\\.168|100\\.(6[4-9]|[7-9][0-9]|1[01][0-9]|12[0-7])|22[4-9]|2[3-5][0-9])\\.", cidr))
    ])
    error_message = "EKS refuses private and reserved ranges here: give the public address that the internet sees. Nodes use the private endpoint and need no entry."
  }
}

variable "cluster_name" {
  description = "Name of the EKS cluster. All other names begin with it; the node group is called <cluster_name>-nodes."
  type        = string
  default     = "thyme-benchmark"
  nullable    = false

  # Names of IAM roles take at most 38 characters before their random suffix, and "-cluster-" is nine.
  validation {
    condition     = can(regex("^[a-z][a-z0-9-]{0,27}[a-z0-9]$", var.cluster_name))
    error_message = "2 to 29 lower-case letters, digits and hyphens; a letter first, no hyphen last."
  }
}

variable "aws_region" {
  description = "Region of everything. It needs three availability zones."
  type        = string
  default     = "eu-central-1"
  nullable    = false

  validation {
    condition     = can(regex("^[a-z]{2,4}(-[a-z]+)+-[1-9]$", var.aws_region))
    error_message = "A region's code, such as eu-central-1; no zone letter."
  }
}

variable "kubernetes_version" {
  description = "Kubernetes version of control plane and nodes. 1.34 costs more from 2 December 2026 on, which a plan warns of: README.md, \"Upgrade Kubernetes\"."
  type        = string
  default     = "1.34"
  nullable    = false

  validation {
    condition     = can(regex("^1\\.(3[4-9]|[4-9][0-9])$", var.kubernetes_version))
    error_message = "A minor version from 1.34 on, such as 1.34; no patch level."
  }
}

variable "node_instance_type" {
  description = "EC2 type of the nodes; the image follows its architecture (x86_64 or arm64). The benchmark is sized for 8 vCPU and 32 GiB."
  type        = string
  default     = "m6i.2xlarge"
  nullable    = false

  validation {
    condition     = can(regex("^[a-z][a-z0-9-]*\\.[a-z0-9-]+$", var.node_instance_type))
    error_message = "An EC2 instance type, such as m6i.2xlarge."
  }
}

variable "node_desired_capacity" {
  description = "Number of nodes. The benchmark needs three: one for the generators, two for the rest."
  type        = number
  default     = 3
  nullable    = false

  validation {
    condition     = var.node_desired_capacity >= 1 && floor(var.node_desired_capacity) == var.node_desired_capacity
    error_message = "A whole number from 1 on."
  }
}

variable "node_max_size" {
  description = "Upper limit for node_desired_capacity. Nothing scales by itself: it only leaves room."
  type        = number
  default     = 6
  nullable    = false

  validation {
    condition     = var.node_max_size >= 4 && floor(var.node_max_size) == var.node_max_size
    error_message = "A whole number from 4 on, so that a fourth node can be added."
  }
}

variable "node_capacity_type" {
  description = "ON_DEMAND or SPOT. Spot nodes cost about a third, but may vanish within two minutes, which ends a run."
  type        = string
  default     = "ON_DEMAND"
  nullable    = false

  validation {
    condition     = contains(["ON_DEMAND", "SPOT"], var.node_capacity_type)
    error_message = "ON_DEMAND or SPOT."
  }
}

variable "nodes_single_az" {
  description = "Put all nodes into the first zone: no charge for traffic between zones, but one zone's outage stops everything."
  type        = bool
  default     = false
  nullable    = false
}

variable "enable_cluster_logging" {
  description = "Send all five control plane logs to CloudWatch. For debugging."
  type        = bool
  default     = false
  nullable    = false
}

variable "cluster_log_retention_days" {
  description = "Days that CloudWatch keeps the control plane logs, if they are enabled."
  type        = number
  default     = 7
  nullable    = false

  validation {
    condition     = contains([1, 3, 5, 7, 14, 30, 60, 90, 120, 150, 180, 365], var.cluster_log_retention_days)
    error_message = "One of 1, 3, 5, 7, 14, 30, 60, 90, 120, 150, 180, 365: CloudWatch takes no other."
  }
}

variable "enable_nat_gateway_ha" {
  description = "One NAT gateway for each zone instead of a single one."
  type        = bool
  default     = false
  nullable    = false
}

variable "grafana_allowed_cidrs" {
  description = "IPv4 ranges that may reach Grafana's load balancer. Empty: the VPC's own range only."
  type        = set(string)
  default     = []
  nullable    = false

  validation {
    condition = alltrue([
      for cidr in var.grafana_allowed_cidrs :
      try(cidrsubnet(cidr, 0, 0) == cidr, false) && can(regex("^[0-9.]+/(8|9|[12][0-9]|3[0-2])$", cidr))
    ])
    error_message = "Each range must be IPv4 in its shortest form, such as 203.0.113.10/32, and no wider than /8: Grafana is served without TLS."
  }
}

variable "enable_ecr" {
  description = "Create the three ECR repositories. They are deleted together with their images."
  type        = bool
  default     = false
  nullable    = false
}

variable "admin_principal_arns" {
  description = "IAM roles and users that become cluster administrators, besides the one who applies."
  type        = set(string)
  default     = []
  nullable    = false

  validation {
    condition     = alltrue([for arn in var.admin_principal_arns : can(regex("^arn:aws[a-z-]*:iam::[0-9]{12}:(role|user)/[^*]+$", arn))])
    error_message = "Each must be the ARN of an IAM role or user. A session (arn:aws:sts::...:assumed-role/...) is none: give its role, with its path."
  }
}

variable "allowed_ssh_cidrs" {
  description = "IPv4 ranges that may reach port 22 of the nodes. Needs key_name too. The nodes are private: these are ranges in the VPC, or behind a VPN or peering."
  type        = set(string)
  default     = []
  nullable    = false

  validation {
    condition = alltrue([
      for cidr in var.allowed_ssh_cidrs :
      try(cidrsubnet(cidr, 0, 0) == cidr, false) && can(regex("^[0-9.]+/(8|9|[12][0-9]|3[0-2])$", cidr))
    ])
    error_message = "Each range must be IPv4 in its shortest form, such as 10.0.1.0/24, and no wider than /8."
  }
}

variable "key_name" {
  description = "Name of an existing EC2 key pair for SSH on the nodes. Null: no key, no SSH."
  type        = string
  default     = null

  validation {
    condition     = var.key_name == null ? true : length(var.key_name) > 0
    error_message = "A key pair's name, or null."
  }
}

variable "support_as_of" {
  description = "Day for which a plan says whether kubernetes_version has standard support, such as 2026-12-24. Null: the day of the plan."
  type        = string
  default     = null

  validation {
    condition     = var.support_as_of == null || can(regex("^[0-9]{4}-[0-9]{2}-[0-9]{2}$", var.support_as_of)) && can(timeadd("${var.support_as_of}T00:00:00Z", "0s"))
    error_message = "A day, such as 2026-12-24, or null."
  }
}
