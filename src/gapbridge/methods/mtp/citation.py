"""The paper that model cards cite."""

GLOECKLE_2024 = {
    "title": "Better & Faster Large Language Models via Multi-token Prediction",
    "id": "2404.19737",
    "citation": (
        "@inproceedings{gloeckle2024better,\n"
        "    title     = {{Better \\& Faster Large Language Models via Multi-token Prediction}},\n"
        "    author    = {Gloeckle, Fabian and Idrissi, Badr Youbi and Rozi{\\`e}re, Baptiste and Lopez-Paz, David "
        "and Synnaeve, Gabriel},\n"
        "    booktitle = {International Conference on Machine Learning},\n"
        "    year      = 2024\n"
        "}"
    ),
}
