# What scripts and people read with `tofu output`.

output "cluster_name" {
  description = "Name of the EKS cluster."
  value       = aws_eks_cluster.this.name
}

output "region" {
  description = "Region of the cluster."
  value       = var.aws_region
}

output "configure_kubectl" {
  description = "Command that makes kubectl use this cluster."
  value       = "aws eks update-kubeconfig --region ${var.aws_region} --name ${aws_eks_cluster.this.name}"
}

output "ecr_repository_urls" {
  description = "Repository by image name. Empty unless enable_ecr is true."
  value       = { for name, repository in aws_ecr_repository.this : name => repository.repository_url }
}

output "grafana_allowed_cidrs" {
  description = "Ranges for Grafana's load balancer: those of the variable, or else the VPC's."
  value       = local.grafana_allowed_cidrs
}

output "vpc_id" {
  description = "The VPC."
  value       = aws_vpc.this.id
}

output "public_subnet_ids" {
  description = "Public subnets, in the order of their zones."
  value       = aws_subnet.public[*].id
}

output "private_subnet_ids" {
  description = "Private subnets, in the order of their zones. The nodes are here."
  value       = aws_subnet.private[*].id
}
