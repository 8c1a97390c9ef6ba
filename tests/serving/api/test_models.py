from openai import OpenAI


def test_the_models_are_listed_with_their_context(client: OpenAI) -> None:
    listed = client.models.list().data
    assert [model.id for model in listed] == ["nano"]
    assert listed[0].model_extra == {"max_model_len": 512}
