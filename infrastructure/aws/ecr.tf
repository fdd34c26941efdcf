# Repositories for those who do not pull from ghcr.io. Off by default. Their names are the images',
# without the cluster's: one stack in an account and region can own them.

locals {
  ecr_repositories = var.enable_ecr ? toset(["thyme", "thyme/log-generator", "thyme/nop-collector"]) : toset([])
}

resource "aws_ecr_repository" "this" {
  # checkov:skip=CKV_AWS_51:`make docker-push` moves the tag `latest` with every push; runs name their image by digest.
  # checkov:skip=CKV_AWS_136:The images are public on ghcr.io. A KMS key would cost a dollar a month and hide nothing; AES256 is on.
  for_each = local.ecr_repositories

  name                 = each.key
  image_tag_mutability = "MUTABLE"
  force_delete         = true # `tofu destroy` takes the images along.

  encryption_configuration {
    encryption_type = "AES256"
  }

  image_scanning_configuration {
    scan_on_push = true
  }
}
