"""The papers that model cards cite."""

CEN_2025 = {
    "title": "Bridging the Training-Inference Gap in LLMs by Leveraging Self-Generated Tokens",
    "id": "2410.14655",
    "citation": (
        "@article{cen2025bridging,\n"
        "    title   = {{Bridging the Training-Inference Gap in LLMs by Leveraging Self-Generated Tokens}},\n"
        "    author  = {Cen, Zhepeng and Liu, Yao and Zeng, Siliang and Chaudhari, Pratik and Rangwala, Huzefa and "
        "Karypis, George and Fakoor, Rasool},\n"
        "    journal = {Transactions on Machine Learning Research},\n"
        "    year    = 2025\n"
        "}"
    ),
}

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
