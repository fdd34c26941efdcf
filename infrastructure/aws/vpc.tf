# One VPC over three zones. Nodes are in the private subnets; the public ones hold NAT gateways and
# the load balancer.

resource "aws_vpc" "this" {
  # checkov:skip=CKV2_AWS_11:Flow logs of a benchmark would record its own load, at CloudWatch's price per GB; the VPC lives for hours and holds generated lines only.
  cidr_block           = local.vpc_cidr
  enable_dns_support   = true
  enable_dns_hostnames = true # The private API endpoint is found through them.

  tags = { Name = "${var.cluster_name}-vpc" }
}

# Adopted to take its rules away: what forgets to name a group can then talk to nobody.
resource "aws_default_security_group" "this" {
  vpc_id = aws_vpc.this.id

  tags = { Name = "${var.cluster_name}-default-unused" }
}

resource "aws_internet_gateway" "this" {
  vpc_id = aws_vpc.this.id

  tags = { Name = "${var.cluster_name}-igw" }
}

# Subnets. The role tags are how the load balancer's controller finds them; without
# kubernetes.io/role/elb the load balancer stays pending.

resource "aws_subnet" "public" {
  count = 3

  vpc_id            = aws_vpc.this.id
  cidr_block        = local.public_subnet_cidrs[count.index]
  availability_zone = local.zones[count.index]

  # NAT gateways and load balancers bring their own addresses, and nothing else starts here.
  map_public_ip_on_launch = false

  tags = {
    Name                                        = "${var.cluster_name}-public-${local.zones[count.index]}"
    "kubernetes.io/role/elb"                    = "1"
    "kubernetes.io/cluster/${var.cluster_name}" = "shared"
  }
}

resource "aws_subnet" "private" {
  count = 3

  vpc_id            = aws_vpc.this.id
  cidr_block        = local.private_subnet_cidrs[count.index]
  availability_zone = local.zones[count.index]

  tags = {
    Name                                        = "${var.cluster_name}-private-${local.zones[count.index]}"
    "kubernetes.io/role/internal-elb"           = "1"
    "kubernetes.io/cluster/${var.cluster_name}" = "shared"
  }
}

# Pods get their addresses in blocks of 16 (prefix delegation). Single addresses scattered over a
# /24 can leave no block free; the upper half is kept for blocks.
resource "aws_ec2_subnet_cidr_reservation" "pods" {
  count = 3

  subnet_id        = aws_subnet.private[count.index].id
  cidr_block       = cidrsubnet(local.private_subnet_cidrs[count.index], 1, 1)
  reservation_type = "prefix"
  description      = "Address blocks of pods"
}

# The way out of the public subnets.

resource "aws_route_table" "public" {
  vpc_id = aws_vpc.this.id

  tags = { Name = "${var.cluster_name}-public" }
}

resource "aws_route" "public_internet" {
  route_table_id         = aws_route_table.public.id
  destination_cidr_block = "0.0.0.0/0"
  gateway_id             = aws_internet_gateway.this.id
}

resource "aws_route_table_association" "public" {
  count = 3

  subnet_id      = aws_subnet.public[count.index].id
  route_table_id = aws_route_table.public.id
}

# The way out of the private subnets: a route table for each, so that one NAT gateway or three is
# a matter of the route alone.

resource "aws_eip" "nat" {
  count = local.nat_gateway_count

  domain = "vpc"

  tags = { Name = "${var.cluster_name}-nat-${local.zones[count.index]}" }

  # Released before the gateway goes, or the gateway could not be detached.
  depends_on = [aws_internet_gateway.this]
}

resource "aws_nat_gateway" "this" {
  count = local.nat_gateway_count

  allocation_id = aws_eip.nat[count.index].id
  subnet_id     = aws_subnet.public[count.index].id

  tags = { Name = "${var.cluster_name}-nat-${local.zones[count.index]}" }

  # A NAT gateway works once its own subnet has a way out.
  depends_on = [aws_route.public_internet, aws_route_table_association.public]
}

resource "aws_route_table" "private" {
  count = 3

  vpc_id = aws_vpc.this.id

  tags = { Name = "${var.cluster_name}-private-${local.zones[count.index]}" }
}

resource "aws_route" "private_nat" {
  count = 3

  route_table_id         = aws_route_table.private[count.index].id
  destination_cidr_block = "0.0.0.0/0"
  nat_gateway_id         = aws_nat_gateway.this[local.nat_gateway_of_zone[count.index]].id
}

resource "aws_route_table_association" "private" {
  count = 3

  subnet_id      = aws_subnet.private[count.index].id
  route_table_id = aws_route_table.private[count.index].id
}
