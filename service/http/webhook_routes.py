"""What webhooks are signed with, over HTTP."""

from __future__ import annotations

from fastapi import APIRouter, Request

from service import problems
from service.http.access import CallerDep
from service.problems import Problem
from service.schemas import WebhookSecret
from service.webhooks import secret_of_owner

router = APIRouter(tags=["webhooks"])


@router.get(
    "/webhook-secret",
    response_model=WebhookSecret,
    operation_id="get_webhook_secret",
    responses={404: problems.described("this service sends no webhooks", "webhooks_off")},
)
async def get_webhook_secret(request: Request, caller: CallerDep) -> WebhookSecret:
    """The secret that webhooks about this key's jobs are signed with."""
    masters = request.app.state.service.settings.webhook_masters
    if not masters:
        raise Problem(404, "webhooks_off", "This service sends no webhooks (AVSA_WEBHOOK_SECRET).")
    return WebhookSecret(secret=secret_of_owner(masters[0], caller.owner))
