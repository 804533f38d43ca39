"""The exceptions that ministack tells apart."""


class DockerException(Exception):
    pass


class APIError(DockerException):
    pass


class NotFound(APIError):
    pass


class ImageNotFound(NotFound):
    pass


class ContainerError(DockerException):
    pass
