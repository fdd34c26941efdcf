# The plan without any choice made: names, addresses, and every fact that EKS insists on.

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

# An apply against the mock: so that what is known only after creation can be compared, too.
run "defaults" {
  command = apply

  # Each add-on another version, so that no two of them can be swapped unseen.

  override_data {
    target = data.aws_eks_addon_version.coredns
    values = { version = "v1.12.4-eksbuild.1" }
  }

  override_data {
    target = data.aws_eks_addon_version.kube_proxy
    values = { version = "v1.34.0-eksbuild.2" }
  }

  override_data {
    target = data.aws_eks_addon_version.pod_identity_agent
    values = { version = "v1.3.9-eksbuild.3" }
  }

  override_data {
    target = data.aws_eks_addon_version.vpc_cni
    values = { version = "v1.20.3-eksbuild.4" }
  }

  # Names

  assert {
    condition     = aws_eks_cluster.this.name == "thyme-benchmark" && output.cluster_name == "thyme-benchmark"
    error_message = "The cluster must be called thyme-benchmark."
  }

  assert {
    condition     = aws_eks_node_group.this.node_group_name == "thyme-benchmark-nodes"
    error_message = "The node group must be called thyme-benchmark-nodes."
  }

  assert {
    condition     = var.aws_region == "eu-central-1" && output.region == "eu-central-1"
    error_message = "The region must be eu-central-1."
  }

  # Network

  assert {
    condition     = aws_vpc.this.cidr_block == "10.0.0.0/16" && aws_vpc.this.enable_dns_support && aws_vpc.this.enable_dns_hostnames
    error_message = "The VPC must be 10.0.0.0/16, with DNS: the private endpoint needs it."
  }

  assert {
    condition     = jsonencode(aws_subnet.public[*].cidr_block) == jsonencode(["10.0.1.0/24", "10.0.2.0/24", "10.0.3.0/24"])
    error_message = "Public subnets must be 10.0.1.0/24 to 10.0.3.0/24."
  }

  assert {
    condition     = jsonencode(aws_subnet.private[*].cidr_block) == jsonencode(["10.0.11.0/24", "10.0.12.0/24", "10.0.13.0/24"])
    error_message = "Private subnets must be 10.0.11.0/24 to 10.0.13.0/24."
  }

  assert {
    condition = (
      jsonencode(aws_subnet.public[*].availability_zone) == jsonencode(["eu-central-1a", "eu-central-1b", "eu-central-1c"])
      && jsonencode(aws_subnet.private[*].availability_zone) == jsonencode(["eu-central-1a", "eu-central-1b", "eu-central-1c"])
    )
    error_message = "There must be a public and a private subnet in each of three zones."
  }

  assert {
    condition     = alltrue([for s in aws_subnet.public : s.tags["kubernetes.io/role/elb"] == "1" && !contains(keys(s.tags), "kubernetes.io/role/internal-elb")])
    error_message = "Public subnets must carry kubernetes.io/role/elb, or no load balancer comes up."
  }

  assert {
    condition     = alltrue([for s in aws_subnet.private : s.tags["kubernetes.io/role/internal-elb"] == "1" && !contains(keys(s.tags), "kubernetes.io/role/elb")])
    error_message = "Private subnets must carry kubernetes.io/role/internal-elb, and not the public tag."
  }

  assert {
    condition     = alltrue([for s in concat(aws_subnet.public, aws_subnet.private) : s.tags["kubernetes.io/cluster/thyme-benchmark"] == "shared"])
    error_message = "Subnets must carry the cluster's tag as shared."
  }

  assert {
    condition     = alltrue([for s in aws_subnet.public : s.map_public_ip_on_launch == false])
    error_message = "Public subnets must hand out no addresses: what starts there brings its own."
  }

  assert {
    condition     = length(aws_nat_gateway.this) == 1 && length(aws_eip.nat) == 1 && aws_eip.nat[0].domain == "vpc"
    error_message = "There must be one NAT gateway with one address in the VPC."
  }

  assert {
    condition     = aws_nat_gateway.this[0].subnet_id == aws_subnet.public[0].id && aws_nat_gateway.this[0].allocation_id == aws_eip.nat[0].id
    error_message = "The NAT gateway must be in the first public subnet."
  }

  assert {
    condition = alltrue([
      for i in range(3) :
      aws_route.private_nat[i].nat_gateway_id == aws_nat_gateway.this[0].id
      && aws_route.private_nat[i].destination_cidr_block == "0.0.0.0/0"
      && aws_route.private_nat[i].route_table_id == aws_route_table.private[i].id
      && aws_route_table_association.private[i].route_table_id == aws_route_table.private[i].id
      && aws_route_table_association.private[i].subnet_id == aws_subnet.private[i].id
    ])
    error_message = "All private subnets must leave through the one NAT gateway."
  }

  assert {
    condition     = jsonencode(local.nat_gateway_of_zone) == jsonencode([0, 0, 0])
    error_message = "The one NAT gateway must be every zone's."
  }

  assert {
    condition = (
      aws_route.public_internet.gateway_id == aws_internet_gateway.this.id
      && aws_route.public_internet.route_table_id == aws_route_table.public.id
      && alltrue([for i in range(3) : aws_route_table_association.public[i].route_table_id == aws_route_table.public.id
      && aws_route_table_association.public[i].subnet_id == aws_subnet.public[i].id])
    )
    error_message = "All public subnets must leave through the internet gateway."
  }

  assert {
    condition     = jsonencode(aws_ec2_subnet_cidr_reservation.pods[*].cidr_block) == jsonencode(["10.0.11.128/25", "10.0.12.128/25", "10.0.13.128/25"])
    error_message = "The upper half of each private subnet must be kept for pods."
  }

  assert {
    condition     = alltrue([for i in range(3) : aws_ec2_subnet_cidr_reservation.pods[i].reservation_type == "prefix" && aws_ec2_subnet_cidr_reservation.pods[i].subnet_id == aws_subnet.private[i].id])
    error_message = "The halves must be reserved for prefixes."
  }

  # Control plane

  assert {
    condition     = aws_eks_cluster.this.version == "1.34" && aws_eks_node_group.this.version == "1.34"
    error_message = "Control plane and nodes must run 1.34."
  }

  assert {
    condition     = aws_eks_cluster.this.vpc_config[0].subnet_ids == toset(aws_subnet.private[*].id)
    error_message = "The control plane's interfaces must be in the private subnets."
  }

  assert {
    condition     = aws_eks_cluster.this.vpc_config[0].endpoint_private_access && aws_eks_cluster.this.vpc_config[0].endpoint_public_access
    error_message = "Nodes need the private endpoint, the caller the public one."
  }

  assert {
    condition     = aws_eks_cluster.this.vpc_config[0].public_access_cidrs == toset(["198.18.0.10/32"])
    error_message = "The public endpoint must answer the given ranges only."
  }

  assert {
    condition     = aws_eks_cluster.this.access_config[0].authentication_mode == "API" && aws_eks_cluster.this.access_config[0].bootstrap_cluster_creator_admin_permissions == false
    error_message = "Access must be by entries alone; a second way for the creator conflicts with his entry."
  }

  assert {
    condition = (
      keys(aws_eks_access_entry.administrator) == ["arn:aws:iam::123456789012:role/team/operator"]
      && alltrue([for arn, entry in aws_eks_access_entry.administrator : entry.principal_arn == arn && entry.type == "STANDARD" && entry.cluster_name == "thyme-benchmark"])
    )
    error_message = "The one who applies must get an entry, by the role and not by the session."
  }

  assert {
    condition = alltrue([
      for arn, association in aws_eks_access_policy_association.administrator :
      association.principal_arn == arn
      && association.policy_arn == "arn:aws:eks::aws:cluster-access-policy/AmazonEKSClusterAdminPolicy"
      && association.access_scope[0].type == "cluster"
    ]) && length(aws_eks_access_policy_association.administrator) == 1
    error_message = "The one who applies must be administrator of the whole cluster."
  }

  assert {
    condition     = aws_eks_cluster.this.upgrade_policy[0].support_type == "EXTENDED"
    error_message = "The version must not change by itself when its standard support ends."
  }

  assert {
    condition     = aws_eks_cluster.this.bootstrap_self_managed_addons == false
    error_message = "EKS must install no add-on by itself."
  }

  assert {
    condition     = aws_eks_cluster.this.kubernetes_network_config[0].service_ipv4_cidr == "172.20.0.0/16" && aws_eks_cluster.this.kubernetes_network_config[0].ip_family == "ipv4"
    error_message = "Services must be in 172.20.0.0/16, outside of the VPC."
  }

  assert {
    condition     = aws_eks_cluster.this.role_arn == aws_iam_role.cluster.arn
    error_message = "The control plane must have its own role."
  }

  assert {
    condition     = length(aws_eks_cluster.this.enabled_cluster_log_types) == 0 && length(aws_cloudwatch_log_group.cluster) == 0
    error_message = "By default there must be no control plane logs, and no group for them."
  }

  # Secrets

  assert {
    condition     = aws_eks_cluster.this.encryption_config[0].resources == toset(["secrets"]) && aws_eks_cluster.this.encryption_config[0].provider[0].key_arn == aws_kms_key.secrets.arn
    error_message = "Secrets must be encrypted with the cluster's key."
  }

  assert {
    condition     = aws_kms_key.secrets.enable_key_rotation && aws_kms_key.secrets.deletion_window_in_days == 7
    error_message = "The key must rotate, and be gone seven days after the cluster."
  }

  assert {
    condition     = aws_kms_alias.secrets.name == "alias/thyme-benchmark-secrets" && aws_kms_alias.secrets.target_key_id == aws_kms_key.secrets.key_id
    error_message = "The key must have an alias."
  }

  # Add-ons

  assert {
    condition = (
      aws_eks_addon.coredns.addon_version == "v1.12.4-eksbuild.1"
      && aws_eks_addon.kube_proxy.addon_version == "v1.34.0-eksbuild.2"
      && aws_eks_addon.pod_identity_agent.addon_version == "v1.3.9-eksbuild.3"
      && aws_eks_addon.vpc_cni.addon_version == "v1.20.3-eksbuild.4"
    )
    error_message = "Each add-on must have the version that was looked up for it."
  }

  assert {
    condition = (
      data.aws_eks_addon_version.coredns.addon_name == "coredns"
      && data.aws_eks_addon_version.kube_proxy.addon_name == "kube-proxy"
      && data.aws_eks_addon_version.pod_identity_agent.addon_name == "eks-pod-identity-agent"
      && data.aws_eks_addon_version.vpc_cni.addon_name == "vpc-cni"
    )
    error_message = "Each version must be looked up by its add-on's name."
  }

  assert {
    condition = (
      aws_eks_addon.coredns.addon_name == "coredns"
      && aws_eks_addon.pod_identity_agent.addon_name == "eks-pod-identity-agent"
      && aws_eks_addon.kube_proxy.addon_name == "kube-proxy"
      && aws_eks_addon.vpc_cni.addon_name == "vpc-cni"
    )
    error_message = "There must be these four add-ons."
  }

  assert {
    condition = alltrue([
      for addon in [
        data.aws_eks_addon_version.coredns, data.aws_eks_addon_version.kube_proxy,
        data.aws_eks_addon_version.pod_identity_agent, data.aws_eks_addon_version.vpc_cni,
      ] : addon.kubernetes_version == "1.34" && addon.most_recent == false
    ])
    error_message = "Versions must be looked up for the cluster's Kubernetes version."
  }

  assert {
    condition = alltrue([
      for addon in [aws_eks_addon.coredns, aws_eks_addon.pod_identity_agent, aws_eks_addon.kube_proxy, aws_eks_addon.vpc_cni] :
      addon.resolve_conflicts_on_create == "OVERWRITE" && addon.resolve_conflicts_on_update == "OVERWRITE"
    ])
    error_message = "An add-on must not stop at a field that something else has set."
  }

  assert {
    condition     = jsonencode(jsondecode(aws_eks_addon.pod_identity_agent.configuration_values).tolerations) == jsonencode([{ operator = "Exists" }])
    error_message = "The agent must start on nodes that are not ready: the network plugin, which makes them ready, waits for it."
  }

  assert {
    condition     = jsondecode(aws_eks_addon.vpc_cni.configuration_values).enableNetworkPolicy == "true"
    error_message = "Without enableNetworkPolicy, as a string, NetworkPolicies do nothing."
  }

  assert {
    condition     = jsondecode(aws_eks_addon.vpc_cni.configuration_values).env.ENABLE_PREFIX_DELEGATION == "true" && jsondecode(aws_eks_addon.vpc_cni.configuration_values).env.WARM_PREFIX_TARGET == "1"
    error_message = "Prefix delegation must be on, with one block in reserve."
  }

  assert {
    condition     = jsondecode(jsondecode(aws_eks_addon.vpc_cni.configuration_values).env.ADDITIONAL_ENI_TAGS).Project == "Thyme"
    error_message = "The plugin must tag the network interfaces that it makes."
  }

  assert {
    condition     = [for a in aws_eks_addon.vpc_cni.pod_identity_association : "${a.service_account} ${a.role_arn}"] == ["aws-node ${aws_iam_role.vpc_cni.arn}"]
    error_message = "The plugin must get its role by pod identity."
  }

  # Roles

  assert {
    condition = (
      aws_iam_role.cluster.name_prefix == "thyme-benchmark-cluster-"
      && aws_iam_role.node.name_prefix == "thyme-benchmark-node-"
      && aws_iam_role.vpc_cni.name_prefix == "thyme-benchmark-vpc-cni-"
    )
    error_message = "Roles must begin with the cluster's name, and have a suffix that makes them unique."
  }

  assert {
    condition = (
      jsondecode(aws_iam_role.cluster.assume_role_policy).Statement[0].Principal.Service == "eks.amazonaws.com"
      && jsondecode(aws_iam_role.node.assume_role_policy).Statement[0].Principal.Service == "ec2.amazonaws.com"
      && jsondecode(aws_iam_role.vpc_cni.assume_role_policy).Statement[0].Principal.Service == "pods.eks.amazonaws.com"
      && jsondecode(aws_iam_role.vpc_cni.assume_role_policy).Statement[0].Action == ["sts:AssumeRole", "sts:TagSession"]
    )
    error_message = "Each role must trust its service; pod identity needs sts:TagSession, too."
  }

  assert {
    condition     = aws_iam_role_policy_attachment.cluster.policy_arn == "arn:aws:iam::aws:policy/AmazonEKSClusterPolicy"
    error_message = "The control plane needs AmazonEKSClusterPolicy."
  }

  assert {
    condition = [for attachment in aws_iam_role_policy_attachment.node : attachment.policy_arn] == [
      "arn:aws:iam::aws:policy/AmazonEC2ContainerRegistryReadOnly",
      "arn:aws:iam::aws:policy/AmazonEKSWorkerNodePolicy",
      "arn:aws:iam::aws:policy/CloudWatchAgentServerPolicy",
    ]
    error_message = "Nodes need ECR, EKS and CloudWatch, and nothing else."
  }

  assert {
    condition     = aws_iam_role_policy_attachment.vpc_cni.policy_arn == "arn:aws:iam::aws:policy/AmazonEKS_CNI_Policy" && aws_iam_role_policy_attachment.vpc_cni.role == aws_iam_role.vpc_cni.name
    error_message = "The network plugin needs AmazonEKS_CNI_Policy."
  }

  assert {
    condition     = jsondecode(aws_iam_role_policy.cluster_no_log_group.policy).Statement[0] == { Effect = "Deny", Action = "logs:CreateLogGroup", Resource = "*" }
    error_message = "A control plane on its way out must not make its log group again."
  }

  assert {
    condition     = jsondecode(aws_iam_role_policy.cluster_secrets_key.policy).Statement[0].Resource == aws_kms_key.secrets.arn
    error_message = "The control plane may use its own key only."
  }

  # Nodes

  assert {
    condition     = aws_eks_node_group.this.scaling_config[0].desired_size == 3 && aws_eks_node_group.this.scaling_config[0].max_size >= 4
    error_message = "There must be three nodes, and room for a fourth."
  }

  assert {
    condition     = jsonencode(aws_eks_node_group.this.instance_types) == jsonencode(["m6i.2xlarge"]) && aws_eks_node_group.this.capacity_type == "ON_DEMAND"
    error_message = "Nodes must be m6i.2xlarge on demand."
  }

  assert {
    condition     = aws_eks_node_group.this.ami_type == "AL2023_x86_64_STANDARD"
    error_message = "An x86_64 type must get the x86_64 image."
  }

  assert {
    condition     = aws_eks_node_group.this.subnet_ids == toset(aws_subnet.private[*].id)
    error_message = "Nodes must be in all private subnets, and in no public one."
  }

  assert {
    condition     = aws_eks_node_group.this.node_role_arn == aws_iam_role.node.arn && aws_eks_node_group.this.update_config[0].max_unavailable == 1
    error_message = "Nodes must have their role, and be replaced one at a time."
  }

  assert {
    condition     = aws_eks_node_group.this.launch_template[0].id == aws_launch_template.node.id && aws_eks_node_group.this.launch_template[0].version == tostring(aws_launch_template.node.latest_version)
    error_message = "The node group must use the template's latest version."
  }

  # Launch template

  assert {
    condition     = toset(aws_launch_template.node.vpc_security_group_ids) == toset([aws_eks_cluster.this.vpc_config[0].cluster_security_group_id, aws_security_group.node_additional.id])
    error_message = "Both groups must be named: one alone takes the cluster's away, and no node joins."
  }

  assert {
    condition     = length(aws_launch_template.node.vpc_security_group_ids) == 2
    error_message = "The two groups must be two."
  }

  assert {
    condition = (
      aws_launch_template.node.metadata_options[0].http_endpoint == "enabled"
      && aws_launch_template.node.metadata_options[0].http_tokens == "required"
      && aws_launch_template.node.metadata_options[0].http_put_response_hop_limit == 1
    )
    error_message = "IMDSv2 must be required, one hop away."
  }

  assert {
    condition = length(aws_launch_template.node.block_device_mappings) == 1 && alltrue([
      for disk in aws_launch_template.node.block_device_mappings :
      disk.device_name == "/dev/xvda"
      && disk.ebs[0].volume_type == "gp3"
      && disk.ebs[0].volume_size == 100
      && disk.ebs[0].throughput == 250
      && tobool(disk.ebs[0].encrypted)
      && tobool(disk.ebs[0].delete_on_termination)
    ])
    error_message = "The root disk must be 100 GB of encrypted gp3 at 250 MB/s that goes with its node."
  }

  assert {
    condition     = toset(aws_launch_template.node.tag_specifications[*].resource_type) == toset(["instance", "volume", "network-interface"])
    error_message = "Instances, volumes and network interfaces must be tagged by the template: default_tags do not reach them."
  }

  assert {
    condition = alltrue([
      for spec in aws_launch_template.node.tag_specifications :
      spec.tags["Project"] == "Thyme" && spec.tags["ManagedBy"] == "OpenTofu" && spec.tags["Environment"] == "benchmark"
      && spec.tags["Cluster"] == "thyme-benchmark" && spec.tags["Name"] == "thyme-benchmark-node"
    ])
    error_message = "The template's tags must be the project's."
  }

  assert {
    condition     = startswith(base64decode(aws_launch_template.node.user_data), "MIME-Version: 1.0\nContent-Type: multipart/mixed; boundary=\"BOUNDARY\"\n\n--BOUNDARY\nContent-Type: application/node.eks.aws\n\n")
    error_message = "User data must be MIME with one part for nodeadm."
  }

  assert {
    condition     = endswith(base64decode(aws_launch_template.node.user_data), "\n--BOUNDARY--\n") && length(split("--BOUNDARY", base64decode(aws_launch_template.node.user_data))) == 3
    error_message = "The MIME document must be closed."
  }

  assert {
    condition = yamldecode(split("\n\n", split("\n--BOUNDARY", base64decode(aws_launch_template.node.user_data))[1])[1]) == {
      apiVersion = "node.eks.aws/v1alpha1"
      kind       = "NodeConfig"
      spec = {
        kubelet = {
          config = {
            containerLogMaxSize         = "100Mi"
            containerLogMaxFiles        = 5
            containerLogMaxWorkers      = 4
            containerLogMonitorInterval = "5s"
          }
        }
      }
    }
    error_message = "NodeConfig must tune the rotation of logs, and say nothing about the cluster."
  }

  # Security groups

  assert {
    condition     = !anytrue([for key in keys(aws_security_group.node_additional.tags) : startswith(key, "kubernetes.io/cluster/")])
    error_message = "Only the cluster's group may carry the cluster's tag, or the load balancer's controller gives up."
  }

  assert {
    condition = (
      aws_vpc_security_group_ingress_rule.node_to_node.referenced_security_group_id == aws_security_group.node_additional.id
      && aws_vpc_security_group_ingress_rule.node_to_node.security_group_id == aws_security_group.node_additional.id
      && aws_vpc_security_group_ingress_rule.node_to_node.ip_protocol == "-1"
    )
    error_message = "Nodes must reach each other."
  }

  assert {
    condition     = length(aws_vpc_security_group_ingress_rule.ssh) == 0
    error_message = "By default there must be no SSH."
  }

  assert {
    condition     = aws_vpc_security_group_egress_rule.node_all.cidr_ipv4 == "0.0.0.0/0" && aws_vpc_security_group_egress_rule.node_all.security_group_id == aws_security_group.node_additional.id
    error_message = "Nodes must reach registries and AWS."
  }

  # What default_tags do not reach

  assert {
    condition     = { for key, tag in aws_ec2_tag.cluster_security_group : tag.key => tag.value } == { Project = "Thyme", ManagedBy = "OpenTofu", Environment = "benchmark", Cluster = "thyme-benchmark" }
    error_message = "The cluster's security group must be tagged."
  }

  assert {
    condition     = alltrue([for tag in aws_ec2_tag.cluster_security_group : tag.resource_id == aws_eks_cluster.this.vpc_config[0].cluster_security_group_id])
    error_message = "The tags must be on the cluster's security group."
  }

  assert {
    condition = alltrue([
      for key in ["Project", "ManagedBy", "Environment", "Cluster"] :
      aws_autoscaling_group_tag.node[key].autoscaling_group_name == "eks-mocked"
      && aws_autoscaling_group_tag.node[key].tag[0].key == key
      && aws_autoscaling_group_tag.node[key].tag[0].propagate_at_launch == false
    ])
    error_message = "The Auto Scaling group must be tagged."
  }

  # Registry and outputs

  assert {
    condition     = length(aws_ecr_repository.this) == 0 && length(output.ecr_repository_urls) == 0
    error_message = "By default there must be no repositories."
  }

  assert {
    condition     = jsonencode(output.grafana_allowed_cidrs) == jsonencode(["10.0.0.0/16"])
    error_message = "By default only the VPC may reach Grafana."
  }

  assert {
    condition     = output.configure_kubectl == "aws eks update-kubeconfig --region eu-central-1 --name thyme-benchmark"
    error_message = "configure_kubectl must be a command that works as it is."
  }

  assert {
    condition     = output.vpc_id == aws_vpc.this.id && jsonencode(output.public_subnet_ids) == jsonencode(aws_subnet.public[*].id) && jsonencode(output.private_subnet_ids) == jsonencode(aws_subnet.private[*].id)
    error_message = "The network's ids must be put out."
  }
}
