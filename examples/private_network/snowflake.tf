# Snowflake by PrivateLink: one endpoint for the account and for the revocation lists of its certificates, under Snowflake's own names.
# https://docs.snowflake.com/en/user-guide/admin-security-privatelink

locals {
  snowflake = var.snowflake == null ? {} : { this = var.snowflake }
}

resource "aws_security_group" "snowflake" {
  for_each = local.snowflake

  name        = "${var.name}-snowflake"
  description = "Snowflake's endpoint: HTTPS and revocation lists, from the runner"
  vpc_id      = aws_vpc.this.id
}

resource "aws_vpc_endpoint" "snowflake" {
  for_each = local.snowflake

  vpc_id             = aws_vpc.this.id
  vpc_endpoint_type  = "Interface"
  service_name       = each.value.service_name
  subnet_ids         = [for subnet in aws_subnet.private : subnet.id]
  security_group_ids = [aws_security_group.snowflake[each.key].id]
  tags               = { Name = "${var.name}-snowflake" }
}

# Revocation lists (OCSP) come by plain HTTP.
resource "aws_vpc_security_group_egress_rule" "snowflake" {
  for_each = var.snowflake == null ? toset([]) : toset(["80", "443"])

  security_group_id            = aws_security_group.runner.id
  description                  = "Snowflake by its endpoint"
  referenced_security_group_id = aws_security_group.snowflake["this"].id
  ip_protocol                  = "tcp"
  from_port                    = tonumber(each.key)
  to_port                      = tonumber(each.key)
}

resource "aws_vpc_security_group_ingress_rule" "snowflake" {
  for_each = var.snowflake == null ? toset([]) : toset(["80", "443"])

  security_group_id            = aws_security_group.snowflake["this"].id
  description                  = "From the runner"
  referenced_security_group_id = aws_security_group.runner.id
  ip_protocol                  = "tcp"
  from_port                    = tonumber(each.key)
  to_port                      = tonumber(each.key)
}

resource "aws_route53_zone" "snowflake" {
  for_each = local.snowflake

  name    = "privatelink.snowflakecomputing.com"
  comment = "Snowflake's names in ${var.name}'s VPC"

  vpc {
    vpc_id = aws_vpc.this.id
  }
}

resource "aws_route53_record" "snowflake" {
  for_each = var.snowflake == null ? toset([]) : toset(var.snowflake.hosts)

  zone_id = aws_route53_zone.snowflake["this"].zone_id
  name    = each.key
  type    = "CNAME"
  ttl     = 300
  records = [aws_vpc_endpoint.snowflake["this"].dns_entry[0].dns_name]
}
