-- What happened, as the registry read it off the stream, and webhooks.
SELECT 1;
