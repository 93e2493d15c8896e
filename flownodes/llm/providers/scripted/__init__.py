"""The provider `scripted`: answers from a file or from the configuration; calls nobody."""

from flownodes.llm.providers.scripted.provider import ScriptedProvider as ScriptedProvider
