variable "id" {
  description = "<name>-<environment>, the topic's name."
  type        = string
}

variable "topic_arn" {
  description = "ARN that the topic will have."
  type        = string
}

variable "chat_arn" {
  description = "ARN that the topic for chat channels will have; null makes none."
  type        = string
}

variable "location" {
  description = "Partition and account, for the topic's policy."
  type        = object({ partition = string, account = string })
}

variable "emails" {
  description = "Addresses to subscribe to what is for everybody."
  type        = list(string)
}

variable "owners" {
  description = "Addresses to subscribe to the digests of an owner, by the owner's name in the dbt project."
  type        = map(list(string))
}

variable "kms_key_arn" {
  description = "Key of the topic; null uses the key that AWS manages for SNS."
  type        = string
}

variable "tags" {
  type = map(string)
}
