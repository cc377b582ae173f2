"""The paper that model cards cite."""

BENGIO_2015 = {
    "title": "Scheduled Sampling for Sequence Prediction with Recurrent Neural Networks",
    "id": "1506.03099",
    "citation": (
        "@inproceedings{bengio2015scheduled,\n"
        "    title     = {{Scheduled Sampling for Sequence Prediction with Recurrent Neural Networks}},\n"
        "    author    = {Bengio, Samy and Vinyals, Oriol and Jaitly, Navdeep and Shazeer, Noam},\n"
        "    booktitle = {Advances in Neural Information Processing Systems},\n"
        "    year      = 2015\n"
        "}"
    ),
}
