from core.settings import read_settings
from core.web.server import run
from serving_api.settings import ServingSettings
from tests.integration.serving_api.stuck import make_sticky

settings = read_settings(ServingSettings)
run(make_sticky, settings.host, settings.port, settings.processes)
