"""The message that both Python peers send."""


def message(to, name, clinic):
    return {
        "from": "+912248931479",
        "to": to,
        "content": {
            "type": "interactive",
            "interactive": {
                "type": "flow",
                "header": {"type": "text", "text": "Your autumn check-up"},
                "body": {
                    "text": f"Dear {name}, it is time for your check-up at {clinic}. Choose a day and an hour that suit you; it takes a minute."
                },
                "footer": {"text": "Reply STOP to hear no more from us"},
                "action": {
                    "name": "flow",
                    "parameters": {
                        "flow_message_version": "3",
                        "flow_id": "1323000000000001",
                        "flow_token": to,
                        "flow_cta": "Book now",
                        "flow_action": "navigate",
                        "flow_action_payload": {
                            "screen": "APPOINTMENT",
                            "data": {
                                "customer_name": name,
                                "clinic": clinic,
                                "slots": ["09:00", "11:30", "15:00", "17:30"],
                            },
                        },
                    },
                },
            },
        },
    }


def outcomes(rows, answer):
    """Returns what Redis keeps of a batch: number -> state and SID."""
    return {
        row[0]: f"accepted {entry['data']['sid']}" if entry["code"] == 202 else f"rejected {entry['code']}"
        for row, entry in zip(rows, answer["response"]["whatsapp"]["messages"])
    }
