locals {
  # By role word: what a policy of a topic is made for.
  topics = merge({ this = var.topic_arn }, var.chat_arn == null ? {} : { chat = var.chat_arn })

  owned = flatten([for owner, emails in var.owners : [for email in emails : { owner = owner, email = email }]])
}

resource "aws_sns_topic" "this" {
  name              = var.id
  kms_master_key_id = coalesce(var.kms_key_arn, "alias/aws/sns")
  tags              = var.tags
}

# What Amazon Q Developer shows in channels of Slack and Microsoft Teams. It takes messages of its own form alone, so mail has another topic.
resource "aws_sns_topic" "chat" {
  for_each = { for role, arn in local.topics : role => arn if role == "chat" }

  name              = "${var.id}-chat"
  kms_master_key_id = coalesce(var.kms_key_arn, "alias/aws/sns")
  tags              = var.tags
}

data "aws_iam_policy_document" "topic" {
  for_each = local.topics

  # The account's own IAM policies decide who publishes and subscribes; no other account does.
  # https://docs.aws.amazon.com/sns/latest/dg/sns-access-policy-use-cases.html
  statement {
    sid       = "Owner"
    actions   = ["sns:Publish", "sns:Subscribe", "sns:GetTopicAttributes", "sns:SetTopicAttributes", "sns:ListSubscriptionsByTopic"]
    resources = [each.value]

    principals {
      type        = "AWS"
      identifiers = ["arn:${var.location.partition}:iam::${var.location.account}:root"]
    }
  }

  # https://docs.aws.amazon.com/sns/latest/dg/sns-security-best-practices.html#enforce-encryption-data-in-transit
  statement {
    sid       = "TlsOnly"
    effect    = "Deny"
    actions   = ["sns:Publish"]
    resources = [each.value]

    principals {
      type        = "*"
      identifiers = ["*"]
    }

    condition {
      test     = "Bool"
      variable = "aws:SecureTransport"
      values   = ["false"]
    }
  }
}

resource "aws_sns_topic_policy" "this" {
  arn    = aws_sns_topic.this.arn
  policy = data.aws_iam_policy_document.topic["this"].json
}

resource "aws_sns_topic_policy" "chat" {
  for_each = aws_sns_topic.chat

  arn    = each.value.arn
  policy = data.aws_iam_policy_document.topic[each.key].json
}

resource "aws_sns_topic_subscription" "email" {
  for_each = toset(var.emails)

  topic_arn = aws_sns_topic.this.arn
  protocol  = "email"
  endpoint  = each.value

  # Alarms have no attributes; digests are for their owners.
  filter_policy = jsonencode({ audience = [{ exists = false }, "everybody"] })
}

resource "aws_sns_topic_subscription" "owner" {
  for_each = { for subscription in local.owned : "${subscription.owner} ${subscription.email}" => subscription }

  topic_arn     = aws_sns_topic.this.arn
  protocol      = "email"
  endpoint      = each.value.email
  filter_policy = jsonencode({ audience = ["owner"], owner = [each.value.owner] })
}
