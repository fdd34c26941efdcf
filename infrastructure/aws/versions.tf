# Works with OpenTofu and with Terraform. 1.10 is the first version of both that locks state in S3
# by itself (`use_lockfile`, see backend.tf.example).
terraform {
  required_version = ">= 1.10.0"

  required_providers {
    aws = {
      source  = "hashicorp/aws"
      version = ">= 6.28.0, < 7.0.0"
    }
  }
}
