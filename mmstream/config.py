from pydantic import BaseModel, ConfigDict


class Settings(BaseModel):
    """Base of every part's settings: frozen, unknown keys refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)
