"""Leads a campaign through its life with the client that openapi-python-client has generated."""

import os
import time
from io import BytesIO

from flowcast_client import AuthenticatedClient
from flowcast_client.api.audiences import list_audiences, upload_audience
from flowcast_client.api.audit import list_audit
from flowcast_client.api.campaigns import (
    cancel_campaign,
    create_campaign,
    get_campaign,
    list_campaigns,
    pause_campaign,
    resume_campaign,
    retry_campaign,
)
from flowcast_client.api.codes import explain_code
from flowcast_client.api.reports import get_report_csv, get_report_json_lines
from flowcast_client.api.suppressed import add_suppressed, list_suppressed, remove_suppressed
from flowcast_client.models import AddBody, CampaignState, Job, Problem, RetryBody, Status, Uploaded
from flowcast_client.types import File

ROWS = b"phone,name\n+919876500001,Asha\n+919876500002,Ravi\n+919876500003,Meera\n12,Nobody\n"

client = AuthenticatedClient(base_url=os.environ["URL"], token="act-1")

with client:
    uploaded = upload_audience.sync(client=client, name="people.csv", body=File(BytesIO(ROWS)))
    assert isinstance(uploaded, Uploaded), uploaded
    assert (uploaded.path, uploaded.rows, uploaded.columns) == ("people.csv", 4, ["phone", "name"]), uploaded
    assert [file.path for file in list_audiences.sync(client=client).items if file.path == "people.csv"]

    job = Job.from_dict(
        {
            "version": 1,
            "id": "life",
            "account": "main",
            "from": "+912248931479",
            "audience": {"csv": {"path": "people.csv"}},
            "message": {"type": "text", "text": {"body": "Dear {{ name }}"}},
            "schedule": {"start_at": "2030-01-01T09:00:00Z"},
        }
    )
    checked = create_campaign.sync(client=client, body=job, check=True)
    assert checked.recipients == 3 and checked.skipped.to_dict() == {"invalid_number": 1}, checked
    status = create_campaign.sync(client=client, body=job)
    assert isinstance(status, Status) and status.state in (CampaignState.SCHEDULED, CampaignState.RUNNING), status
    assert pause_campaign.sync(client=client, id="life").state == CampaignState.PAUSED
    assert resume_campaign.sync(client=client, id="life").state == CampaignState.SCHEDULED
    assert cancel_campaign.sync(client=client, id="life").state == CampaignState.CANCELLED
    refused = pause_campaign.sync(client=client, id="life")
    assert isinstance(refused, Problem) and refused.status == 409, refused

    sent = job.to_dict()
    del sent["schedule"]
    sent["id"] = "life-2"
    create_campaign.sync(client=client, body=Job.from_dict(sent))
    while (status := get_campaign.sync(client=client, id="life-2")).state != CampaignState.COMPLETED:
        time.sleep(0.05)
    assert (status.counts.accepted, status.counts.skipped, status.account) == (3, 1, "main"), status
    assert status.finished_at > status.submitted_at and status.sandbox is False, status
    assert retry_campaign.sync(client=client, id="life-2", body=RetryBody(codes=["500"])).messages == 0
    page = list_campaigns.sync(client=client, state=CampaignState.COMPLETED, limit=1)
    assert [item.id for item in page.items] == ["life-2"], page

    report = get_report_csv.sync(client=client, id="life-2")
    assert len(report.splitlines()) == 5, report
    lines = get_report_json_lines.sync(client=client, id="life-2")
    assert len(lines.splitlines()) == 4, lines

    assert add_suppressed.sync(client=client, body=AddBody(numbers=["+919876500009"])).added == 1
    assert list_suppressed.sync(client=client).items == ["+919876500009"]
    assert remove_suppressed.sync_detailed(client=client, number="+919876500009").status_code == 204
    assert explain_code.sync(client=client, code="131026")[0].code == "131026"
    assert {act.what.value for act in list_audit.sync(client=client).items} >= {"submit", "pause", "resume", "cancel"}

print("the campaign has led its life")
