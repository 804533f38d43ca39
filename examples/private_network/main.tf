# A network without a way to the internet: no gateway, no NAT, no public address. What the runner needs of AWS comes by VPC endpoints.
#
#   runner -> endpoints (ECR, logs, STS, ...) and gateways (S3, DynamoDB) -> AWS
#   runner -> the warehouse: in this VPC, behind a peering or transit gateway, or behind its own endpoint (Snowflake)

provider "aws" {
  region = var.region
}

data "aws_partition" "current" {}
data "aws_caller_identity" "current" {}

locals {
  arn      = "arn:${data.aws_partition.current.partition}"
  account  = data.aws_caller_identity.current.account_id
  regional = "${var.region}:${local.account}"
}

resource "aws_vpc" "this" {
  cidr_block = var.cidr

  # The endpoints answer under the services' own names.
  enable_dns_support   = true
  enable_dns_hostnames = true

  tags = { Name = var.name }
}

# The group that AWS makes with each VPC: nobody uses it, so it lets nothing in or out.
resource "aws_default_security_group" "this" {
  vpc_id = aws_vpc.this.id
}

resource "aws_subnet" "private" {
  for_each = { for place, zone in var.availability_zones : zone => cidrsubnet(var.cidr, 4, place) }

  vpc_id            = aws_vpc.this.id
  availability_zone = each.key
  cidr_block        = each.value
  tags              = { Name = "${var.name}-private-${each.key}" }
}

# Only what is local, and what the gateway endpoints add.
resource "aws_route_table" "private" {
  vpc_id = aws_vpc.this.id
  tags   = { Name = "${var.name}-private" }
}

resource "aws_route_table_association" "private" {
  for_each = aws_subnet.private

  subnet_id      = each.value.id
  route_table_id = aws_route_table.private.id
}

# The runner: nothing comes in, and out goes what it needs and no more. DNS by the VPC's own resolver asks no security group.

resource "aws_security_group" "runner" {
  name        = "${var.name}-runner"
  description = "dbt runner: nothing in, least out"
  vpc_id      = aws_vpc.this.id
}

resource "aws_vpc_security_group_egress_rule" "endpoints" {
  security_group_id            = aws_security_group.runner.id
  description                  = "AWS by interface endpoints"
  referenced_security_group_id = aws_security_group.endpoints.id
  ip_protocol                  = "tcp"
  from_port                    = 443
  to_port                      = 443
}

resource "aws_vpc_security_group_egress_rule" "gateways" {
  for_each = aws_vpc_endpoint.gateway

  security_group_id = aws_security_group.runner.id
  description       = "AWS by the gateway endpoint of ${each.key}"
  prefix_list_id    = each.value.prefix_list_id
  ip_protocol       = "tcp"
  from_port         = 443
  to_port           = 443
}

resource "aws_vpc_security_group_egress_rule" "warehouse" {
  for_each = var.warehouse_targets

  security_group_id            = aws_security_group.runner.id
  description                  = "Warehouse ${each.key}"
  cidr_ipv4                    = each.value.cidr
  referenced_security_group_id = each.value.security_group_id
  ip_protocol                  = "tcp"
  from_port                    = each.value.port
  to_port                      = each.value.port
}

resource "aws_security_group" "endpoints" {
  name        = "${var.name}-endpoints"
  description = "VPC endpoints: HTTPS from the runner"
  vpc_id      = aws_vpc.this.id
}

resource "aws_vpc_security_group_ingress_rule" "endpoints" {
  security_group_id            = aws_security_group.endpoints.id
  description                  = "HTTPS from the runner"
  referenced_security_group_id = aws_security_group.runner.id
  ip_protocol                  = "tcp"
  from_port                    = 443
  to_port                      = 443
}
