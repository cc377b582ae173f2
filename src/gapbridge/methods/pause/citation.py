"""The paper that model cards cite."""

GOYAL_2024 = {
    "title": "Think before you speak: Training Language Models With Pause Tokens",
    "id": "2310.02226",
    "citation": (
        "@inproceedings{goyal2024think,\n"
        "    title     = {{Think before you speak: Training Language Models With Pause Tokens}},\n"
        "    author    = {Goyal, Sachin and Ji, Ziwei and Rawat, Ankit Singh and Menon, Aditya Krishna and Kumar, "
        "Sanjiv and Nagarajan, Vaishnavh},\n"
        "    booktitle = {The Twelfth International Conference on Learning Representations},\n"
        "    year      = 2024\n"
        "}"
    ),
}
