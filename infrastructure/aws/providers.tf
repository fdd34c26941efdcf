provider "aws" {
  region = var.aws_region

  # Reaches everything that the provider itself creates. What EC2 creates from the launch template,
  # and what the cluster creates, is tagged where it is declared.
  default_tags {
    tags = local.tags
  }
}
