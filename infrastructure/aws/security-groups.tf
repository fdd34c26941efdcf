# The nodes' additional security group. EKS makes the other one, the cluster's, itself.
#
# It must not carry the tag kubernetes.io/cluster/<name>: the controller of the load balancer writes
# its rules into the one group of a node that does, and gives up where two do. The cluster's has it.

resource "aws_security_group" "node_additional" {
  name        = "${var.cluster_name}-node-additional"
  description = "Nodes of ${var.cluster_name}: traffic among them, and SSH where it is asked for"
  vpc_id      = aws_vpc.this.id

  tags = { Name = "${var.cluster_name}-node-additional" }
}

resource "aws_vpc_security_group_ingress_rule" "node_to_node" {
  security_group_id            = aws_security_group.node_additional.id
  description                  = "Nodes and pods among themselves"
  referenced_security_group_id = aws_security_group.node_additional.id
  ip_protocol                  = "-1"

  tags = { Name = "${var.cluster_name}-node-to-node" }
}

resource "aws_vpc_security_group_ingress_rule" "ssh" {
  for_each = var.key_name == null ? toset([]) : var.allowed_ssh_cidrs

  security_group_id = aws_security_group.node_additional.id
  description       = "SSH"
  cidr_ipv4         = each.value
  ip_protocol       = "tcp"
  from_port         = 22
  to_port           = 22

  tags = { Name = "${var.cluster_name}-ssh" }
}

resource "aws_vpc_security_group_egress_rule" "node_all" {
  # checkov:skip=CKV_AWS_382:Nodes pull images from registries and talk to AWS's APIs, whose addresses change; the cluster's own group allows the same, and NetworkPolicies bound the pods.
  security_group_id = aws_security_group.node_additional.id
  description       = "Registries, AWS APIs, other nodes"
  cidr_ipv4         = "0.0.0.0/0"
  ip_protocol       = "-1"

  tags = { Name = "${var.cluster_name}-node-egress" }
}
