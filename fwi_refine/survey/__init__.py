"""Where waves are sent out and recorded, what the scheme can do there, and what fits to it."""

from fwi_refine.survey.frequency import lower_frequency
from fwi_refine.survey.geometry import OPENFWI, Survey
from fwi_refine.survey.toml import read_survey, survey_table, write_survey
from fwi_refine.survey.validate import (
    check_prediction,
    check_record,
    check_velocity,
    to_maps,
    to_numpy,
)

__all__ = [
    "OPENFWI",
    "Survey",
    "check_prediction",
    "check_record",
    "check_velocity",
    "lower_frequency",
    "read_survey",
    "survey_table",
    "to_maps",
    "to_numpy",
    "write_survey",
]
