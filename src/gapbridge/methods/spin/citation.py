"""The paper that model cards cite."""

CHEN_2024 = {
    "title": "Self-Play Fine-Tuning Converts Weak Language Models to Strong Language Models",
    "id": "2401.01335",
    "citation": (
        "@inproceedings{chen2024selfplay,\n"
        "    title     = {{Self-Play Fine-Tuning Converts Weak Language Models to Strong Language Models}},\n"
        "    author    = {Chen, Zixiang and Deng, Yihe and Yuan, Huizhuo and Ji, Kaixuan and Gu, Quanquan},\n"
        "    booktitle = {Proceedings of the 41st International Conference on Machine Learning},\n"
        "    year      = 2024\n"
        "}"
    ),
}
