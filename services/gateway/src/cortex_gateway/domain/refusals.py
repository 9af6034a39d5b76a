"""What the gateway says when it will not, or no longer, serve a request."""

from cortex_gateway.domain.errors import ApiError

CANCELLED = 499


def queue_full(model: str, retry_after_s: int) -> ApiError:
    return ApiError(
        429,
        "model_overloaded",
        f"The model '{model}' is busy and too many requests wait for it already.",
        retry_after_s=retry_after_s,
    )


def queue_timeout(model: str, waited_s: float, retry_after_s: int) -> ApiError:
    return ApiError(
        429,
        "model_overloaded",
        f"The model '{model}' is busy: this request waited {waited_s:.0f} s for its turn.",
        retry_after_s=retry_after_s,
    )


def displaced(model: str, retry_after_s: int) -> ApiError:
    return ApiError(
        429,
        "model_overloaded",
        f"The model '{model}' is busy: a request of higher priority took this one's place in the line.",
        retry_after_s=retry_after_s,
    )


def deadline_exceeded(milliseconds: int) -> ApiError:
    return ApiError(504, "deadline_exceeded", f"The request's own deadline of {milliseconds} ms has passed.")


def deadline_invalid(header: str, most_ms: int) -> ApiError:
    return ApiError(400, "invalid_value", f"{header} is a number of milliseconds from 1 to {most_ms}.", param=header)


def request_cancelled() -> ApiError:
    return ApiError(CANCELLED, "request_cancelled", "The request was cancelled by its id.")


def request_not_found(request_id: str) -> ApiError:
    return ApiError(
        404, "request_not_found", f"No running request of this API key has the id '{request_id}'.", param="id"
    )
